import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, load, modelOf } from './load.mjs';

const { savedPage } = await load(['core', 'explorer_saved'], ['savedPage']);

test('a page saves itself as the kernel would: bytes as base64, and nothing can end its script', () => {
	const state = {
		page: { template: '<title>%title%</title>%css%|%state%|%esm%|100%', names: ['meta', 'xy', 'banks'] },
		_css: '.a { width: 50% }',
		_esm: "const $& = '%state%';",
		meta: { kernel: true, patches: 2 },
		xy: [bytes([1, 2, 255])],
		banks: [{ names: ['</script><script>alert(1)'] }],
	};
	const page = savedPage(modelOf(state));
	const [head, text, esm] = page.split('|');
	assert.equal(head, '<title>Prototype explorer</title>.a { width: 50% }');
	assert.equal(esm, "const $& = '%state%';", 'what is filled in is not filled again');
	assert.ok(!text.includes('<'));
	const told = JSON.parse(text);
	assert.deepEqual(told.meta, { kernel: false, patches: 2 });
	assert.deepEqual(told.xy, [{ base64: 'AQL/' }]);
	assert.deepEqual(told.banks, state.banks);
});
