import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, load } from './load.mjs';

const core = await load(
	['core'],
	[
		'abgr',
		'bestOfEach',
		'Codes',
		'clamp',
		'count',
		'HEAT',
		'heatColour',
		'percent',
		'shownOf',
		'soon',
		'styleOf',
		'u8',
		'u16',
		'u32',
	],
);

test('64 prototypes have a colour and a shape of their own', () => {
	const pairs = Array.from({ length: 64 }, (_, n) => core.styleOf(n).join());
	assert.equal(new Set(pairs).size, 64);
	assert.deepEqual(core.styleOf(9), [1, 2]);
});

test('bytes of a view are read from where it begins', () => {
	const buffer = Uint8Array.of(9, 1, 0, 2, 0, 0, 0, 7).buffer;
	assert.deepEqual([...core.u16(new DataView(buffer, 1, 4))], [1, 2]);
	assert.deepEqual([...core.u8(new DataView(buffer, 6, 2))], [0, 7]);
	assert.deepEqual([...core.u32(bytes([1, 1, 0, 0]))], [257]);
	assert.equal(core.u8(undefined).length, 0);
});

test('numbers are written for people', () => {
	assert.equal(core.count(1234567), '1,234,567');
	assert.equal(core.percent(0.256), '26 %');
	assert.deepEqual(
		[-1, 0.5, 7].map(x => core.clamp(x, 0, 2)),
		[0, 0.5, 2],
	);
});

test('heat goes from nothing over yellow to red', () => {
	assert.equal(core.HEAT[3], 0);
	assert.deepEqual([...core.HEAT.subarray(4 * 255)], [230, 13, 77, 242]);
	assert.equal(core.abgr('#0072B2'), 0xffb27200);
	assert.equal(core.heatColour(2), core.heatColour(1));
});

test('codes give the cosine of patches', () => {
	const codes = new core.Codes(bytes([0x9f, 0xf9, 0x71, 0x9f]), [0.5, 0.25], 4);
	const vectors = [
		[7, 1],
		[1, 7],
		[-7, -1],
		[7, 1],
	].map(([a, b]) => [a * 0.5, b * 0.25]);
	const dot = (u, v) => u[0] * v[0] + u[1] * v[1];
	for (const p of [0, 1])
		for (const [q, cosine] of codes.like(p).entries()) {
			const [u, v] = [vectors[p], vectors[q]];
			assert.ok(Math.abs(cosine - dot(u, v) / Math.sqrt(dot(u, u) * dot(v, v))) < 1e-6);
		}
});

test('a patch without a code is like nothing', () => {
	const codes = new core.Codes(bytes([0x9f, 0xf9, 0x88]), [0.5, 0.25], 3);
	assert.equal(codes.like(0)[2], -1);
	assert.deepEqual([...codes.like(2)], [-1, -1, -1]);
});

test('rows and columns of a picture tell which patches it shows', () => {
	const meta = {
		grid: [2, 3],
		patches: 12,
		shown: [
			[0, 2, 1, 3],
			[1, 2, 0, 3],
		],
	};
	assert.deepEqual([...core.shownOf(meta)], [0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1]);
	assert.deepEqual([...core.shownOf({ ...meta, shown: null })], Array(12).fill(1));
});

test('each image has one best patch, the first where two are alike', () => {
	assert.deepEqual(core.bestOfEach(Float32Array.of(0.1, 0.9, 0.3, 0.3, 0.2, 0.1), 2), [1, 2, 4]);
});

test('what is asked for often is drawn once a frame', () => {
	const frames = [];
	globalThis.requestAnimationFrame = f => frames.push(f);
	let drawn = 0;
	const redraw = core.soon(() => drawn++);
	redraw();
	redraw();
	for (const f of frames.splice(0)) f();
	assert.equal(drawn, 1);
	redraw();
	for (const f of frames.splice(0)) f();
	assert.equal(drawn, 2);
});
