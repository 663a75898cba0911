import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, load, modelOf } from './load.mjs';

const { begins, ExplorerChoice, csvOf, falling, inStrip, middleOf, nearest, neighbour, scattered, within } = await load(
	['core', 'explorer_geometry', 'explorer_data', 'explorer_choice'],
	[
		'begins',
		'csvOf',
		'ExplorerChoice',
		'falling',
		'inStrip',
		'middleOf',
		'nearest',
		'neighbour',
		'scattered',
		'within',
	],
);

// Two images of 1 x 2 patches, three prototypes; the two strongest of each patch, then their shares in 1/255.
const TOP = [
	[0, 1],
	[1, 0],
	[2, 1],
	[0, 2],
	[200, 50],
	[150, 100],
	[255, 0],
	[130, 125],
].flat();

function dataOf(changes = {}, bank = {}, meta = {}) {
	const stats = [0, 1, 2].map(k => ({
		entropy: k / 10,
		near: [[k, 0.1]],
		other: (k + 1) % 3,
		alike: k ? 0.5 : 0.97,
		part: [1, 0, 2][k],
		share: [0.5, null, 0.7][k],
		clearest: [[1], [], [2]][k],
	}));
	return new ExplorerChoice(
		modelOf({
			meta: {
				grid: [1, 2],
				patches: 4,
				count: 2,
				models: [{ name: 'teacher', bank: 0, steps: [0.5, 0.25] }],
				parts: ['background', 'leg', 'tail'],
				ids: ['a.png', 'b.png'],
				folder: 'farm/',
				labels: [0, -1],
				classes: ['cow'],
				seed: 3,
				data: 'abc',
				...meta,
			},
			banks: [{ names: ['p10', 'p9', 'tail'], enabled: [true, true, true], merged: [0, 1, 2], ...bank }],
			stats: [stats],
			top: [bytes(TOP)],
			codes: [bytes([0x9f, 0xf9, 0x71, 0x9f])],
			xy: [bytes([0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0])],
			maps: [{ name: 'PCA', note: 'PCA' }],
			on_map: 'PCA',
			parts: bytes([1, 1, 0, 2]),
			selection: bytes([]),
			prototype: -1,
			patch: 0,
			model: 0,
			show: 'prototype',
			colour_by: 'prototype',
			...changes,
		}),
	);
}

test('a patch belongs to its strongest prototype', () => {
	assert.deepEqual([...dataOf().soft[0].label], [0, 1, 2, 0]);
});

test('disabled prototypes pass their share on', () => {
	const data = dataOf({}, { enabled: [false, true, true] });
	assert.deepEqual([...data.soft[0].label], [1, 1, 2, 2]);
	assert.equal(data.share(0, 0, 1), 50 / (255 - 200));
	assert.equal(data.share(0, 3, 2), 1);
	assert.equal(dataOf().share(0, 0, 1), 50 / 255);
});

test('the shares of merged prototypes count together', () => {
	const data = dataOf({}, { merged: [0, 0, 2], enabled: [true, false, true] });
	assert.deepEqual([...data.soft[0].label], [0, 0, 2, 0]);
	assert.equal(data.share(0, 1, 0), 250 / 255);
});

test('a patch whose prototypes are all off belongs to none', () => {
	const data = dataOf({}, { enabled: [false, false, true] });
	assert.deepEqual([...data.soft[0].label], [0xffff, 0xffff, 2, 2]);
	assert.equal(data.rows()[0].prototype, null);
});

test('the table counts patches, parts and marks, in the order asked for', () => {
	const data = dataOf();
	const rows = data.table(0);
	assert.deepEqual(
		rows.map(row => [row.k, row.size]),
		[
			[0, 2],
			[1, 1],
			[2, 1],
		],
	);
	assert.deepEqual([rows[0].part, rows[0].purity, rows[0].marks], [1, 0.5, ['clearest leg', 'twin of p9']]);
	data.sort = ['name', 1];
	assert.deepEqual(
		data.table(0).map(row => row.name),
		['p9', 'p10', 'tail'],
	);
	const off = dataOf({}, { enabled: [false, true, true] }).table(0);
	assert.deepEqual(off.at(-1).marks, ['off']);
});

test('bars beside a padded picture belong to no prototype and are not counted', () => {
	const shown = [
		[0, 1, 0, 1], // patch 1 is a bar
		[0, 1, 0, 2],
	];
	const data = dataOf({}, {}, { shown });
	assert.deepEqual([...data.soft[0].label], [0, 0xffff, 2, 0]);
	assert.equal(data.numShown, 3);
	assert.deepEqual(
		data.rows().map(row => row.patch),
		[0, 2, 3],
	);
	assert.deepEqual(data.strongest(0, -1).sort(), [0, 2, 3]);
	for (const colour_by of ['prototype', 'class'])
		assert.equal(dataOf({ colour_by }, {}, { shown }).colouring(0).of(1), -1);
});

test('the strongest patches of a prototype come first', () => {
	assert.deepEqual([...dataOf().strongest(0, 0)], [0, 3]);
	assert.deepEqual([...dataOf({ selection: bytes([3, 0, 0, 0, 1, 0, 0, 0]) }).strongest(0, 0)], [3, 1]);
	assert.deepEqual(dataOf().strongest(0, -1).sort(), [0, 1, 2, 3]);
});

test('likeness goes to the boxed patch, and is kept until another is boxed', () => {
	const data = dataOf();
	assert.equal(data.like(0), data.like(0));
	assert.ok(Math.abs(data.like(0)[3] - 1) < 1e-6);
	assert.equal(dataOf({ patch: -1 }).like(0), null);
	assert.equal(data.mostAlike(0)[0], 0);
});

test('colours are those of the prototype, the part or the class; -1 is grey', () => {
	const colours = by => [0, 1, 2, 3].map(dataOf({ colour_by: by }).colouring(0).of);
	assert.deepEqual(colours('prototype'), [0, 1, 2, 0]);
	assert.deepEqual(colours('part'), [0, 0, -1, 1]);
	assert.deepEqual(colours('class'), [0, 0, -1, -1]);
});

test('rows name image, place, part and class in full', () => {
	const rows = dataOf({ selection: bytes([1, 0, 0, 0]) }).rows();
	assert.deepEqual(rows, [
		{
			patch: 1,
			image: 'farm/a.png',
			row: 0,
			column: 1,
			prototype: 1,
			name: 'p9',
			assignment: 0.588,
			part: 'leg',
			class: 'cow',
			seed: 3,
			data: 'abc',
		},
	]);
});

test('CSV quotes commas, quotes and line breaks', () => {
	const rows = [
		{ a: 'x,"y"', b: null },
		{ a: 'two\nlines', b: 0 },
	];
	assert.equal(csvOf(rows), 'a,b\r\n"x,""y""",\r\n"two\nlines",0');
});

const GRID = { n: 9, x: i => 10 * (i % 3), y: i => 10 * Math.floor(i / 3), patch: i => 100 + i };

test('a lasso and a box hold the centres inside them', () => {
	const triangle = [
		[-5, -5],
		[25, -5],
		[-5, 25],
	];
	assert.deepEqual(within(triangle, 'lasso', GRID), [100, 101, 103]);
	assert.deepEqual(
		within(
			[
				[15, 15],
				[-1, -1],
			],
			'box',
			GRID,
		),
		[100, 101, 103, 104],
	);
	const circle = Array.from({ length: 1000 }, (_, i) => [10 + 12 * Math.cos(i / 159), 10 + 12 * Math.sin(i / 159)]);
	assert.deepEqual(within(circle, 'lasso', GRID), [101, 103, 104, 105, 107]);
});

test('the pointer finds the nearest patch within reach', () => {
	assert.equal(nearest([11, 8], 12, GRID), 104);
	assert.equal(nearest([50, 50], 12, GRID), -1);
});

test('arrows go to the next patch in a direction and stay at the edge', () => {
	assert.equal(neighbour(104, [1, 0], GRID), 5);
	assert.equal(neighbour(104, [0, -1], GRID), 1);
	assert.equal(neighbour(105, [1, 0], GRID), 5);
	assert.equal(neighbour(-1, [1, 0], GRID), 1);
});

test('some patches from all over are different ones', () => {
	const some = scattered(1000, 50);
	assert.equal(new Set(some).size, 50);
	assert.ok(Math.min(...some) < 50 && Math.max(...some) > 950);
	assert.equal(scattered(3, 50).length, 3);
});

test('groups are coloured together and called after the one that has a name', () => {
	const state = [0, 1, 2].map(k => ({ group: +(k === 2), beside: [] }));
	const data = dataOf({ colour_by: 'group', stats: [state] });
	const { of, texts } = data.colouring(0);
	assert.deepEqual([0, 1, 2, 3].map(of), [0, 0, 1, 0]);
	assert.deepEqual(texts, ['p10 + 1', 'tail']);
});

test('the places of the map that is shown are read, and how far they reach', () => {
	const maps = [{ name: 'UMAP' }, { name: 'PCA' }];
	const xy = [bytes(Array(16).fill(0)), bytes([0, 0, 0, 0, 254, 255, 0, 0, 254, 255, 255, 127, 255, 255, 255, 255])];
	const data = dataOf({ maps, on_map: 'PCA', xy });
	assert.equal(data.places[0][2], 65534);
	assert.deepEqual(
		data.extents[0].map(v => +v.toFixed(2)),
		[1, 0.5],
	);
	assert.equal(dataOf({ maps, on_map: 'UMAP', xy }).places[0][2], 0);
	assert.equal(middleOf(data.places[0], [3]), null);
	assert.deepEqual(middleOf(data.places[0], [0, 1, 3]), [0.5, 1]);
});

test('filters leave patches of some images, or of what is not background; the rest is not counted', () => {
	const data = dataOf({}, {}, { answers: [0, 0] });
	Object.assign(data.filter, { keep: 'front' });
	data.readFilter();
	assert.deepEqual([...data.kept], [1, 1, 0, 1]);
	assert.deepEqual(data.mine(0, 2), []);
	assert.deepEqual([...data.tallies(0).now], [2, 1, 0]);
	assert.deepEqual([...data.tallies(0).size], [2, 1, 1]);
	for (const [pictures, kept] of [
		['class:0', [1, 1, 0, 0]],
		['right', [1, 1, 0, 0]],
		['wrong', [0, 0, 0, 0]], // an image without a label is neither
		['all', [1, 1, 1, 1]],
	]) {
		data.filter = { keep: 'all', pictures };
		data.readFilter();
		assert.deepEqual([...data.kept], kept, pictures);
	}
	assert.equal(data.numKept, 4);
	const plain = dataOf({ stats: [[{ front: true }, { front: false }, { front: true }]] }, {}, { parts: null });
	plain.filter.keep = 'front';
	plain.readFilter();
	assert.deepEqual([...plain.kept], [1, 0, 1, 1]);
});

test('strips show the top, the middle, some at random, or one of each owner', () => {
	const list = [10, 11, 20, 21, 30];
	const sorted = Uint32Array.from(list); // as they come from falling
	const owner = p => Math.floor(p / 10);
	assert.deepEqual([...inStrip(sorted, 'top', owner)], list);
	assert.deepEqual([...inStrip(sorted, 'middle', owner)], [20, 11, 21, 10, 30]);
	assert.deepEqual([...inStrip(sorted, 'owners', owner)], [10, 20, 30]);
	const random = inStrip(sorted, 'random', owner);
	assert.notDeepEqual(random, list);
	assert.deepEqual([...random].sort(), list);
	assert.deepEqual(inStrip(sorted, 'random', owner), random);
});

test('the histogram counts assignments, and those of patches that prefer the prototype', () => {
	const { all, mine, values, end } = dataOf().histogram(0, 1);
	assert.deepEqual([all.reduce((a, b) => a + b), mine.reduce((a, b) => a + b)], [2, 1]); // patch 2 has it with 0
	assert.ok(Math.abs(values[1] - 150 / 255) < 1e-6);
	assert.ok(Math.abs(end - 150 / 255) < 1e-6, 'it ends at the greatest assignment');
	assert.equal(mine[24], 1);
});

test('a place in the frame, and what lives in one image, are marked so', () => {
	const stats = [0.9, 0.1, 0.1].map((place, k) => ({
		near: [[k, 0.1]],
		other: -1,
		alike: 0,
		place,
		owner: k === 2 ? 0.9 : 0.2,
	}));
	const marks = dataOf({ stats: [stats] })
		.table(0)
		.sort((a, b) => a.k - b.k)
		.map(row => row.marks);
	assert.deepEqual(marks, [['a place'], [], ['one image']]);
});

test('the patches of a picture of one’s own come after all others, and are counted nowhere', () => {
	const own = { name: 'mine.jpg', top: [bytes([2, 1, 0, 0, 200, 20, 0, 0])], codes: [bytes([0x71, 0x88])] };
	const data = dataOf({ own, patch: 4, show: 'likeness' });
	assert.deepEqual([...data.soft[0].label], [0, 1, 2, 0, 2, 0xffff]);
	assert.deepEqual([...data.shown], [1, 1, 1, 1, 1, 0]);
	assert.equal(
		data.table(0).reduce((sum, row) => sum + row.size, 0),
		4,
	);
	assert.ok(Math.abs(data.like(0)[2] - 1) < 1e-6);
	assert.equal(data.mostAlike(0)[0], 2);
	assert.equal(data.heatOf(0, 2).length, 2);
	assert.deepEqual([data.idOf(2), data.idOf(0), data.part(4)], ['mine.jpg', 'image a.png', '']);
});

test('a search asks for beginnings of words', () => {
	assert.ok(!begins('p07 leg clearest leg', 'ear'), 'clearest is no ear');
	assert.ok(begins('p41 clearest ear, horn', 'EAR clear'));
	assert.ok(begins('p41', ' '));
	assert.ok(!begins('p41 ear', 'ear tail'));
});

test('patches fall by their values, those with the same value in their order', () => {
	const values = Float32Array.of(0.1, 1, 0.5, 0.5, 0);
	assert.deepEqual([...falling([0, 1, 2, 3, 4], values)], [1, 2, 3, 0, 4]);
	assert.deepEqual([...falling(Uint32Array.of(4, 3, 2), values)], [3, 2, 4]);
});

test('a lasso of many corners encloses what the rule of odd crossings says', () => {
	const corners = Array.from({ length: 150 }, (_, i) => {
		const r = i % 2 ? 40 : 15 + (i % 7);
		return [50 + r * Math.cos((i / 150) * 2 * Math.PI), 50 + r * Math.sin((i / 150) * 2 * Math.PI)];
	});
	const places = Array.from({ length: 400 }, (_, i) => [5 * (i % 20) + 0.3, 5 * Math.floor(i / 20) + 0.7]);
	const odd = ([a, b]) =>
		corners.reduce((inside, [x, y], s) => {
			const [u, v] = corners[(s || 150) - 1];
			return y > b !== v > b && a < ((u - x) * (b - y)) / (v - y) + x ? !inside : inside;
		}, false);
	const all = { n: 400, x: i => places[i][0], y: i => places[i][1], patch: i => i };
	const expected = places.flatMap((place, i) => (odd(place) ? [i] : []));
	assert.ok(expected.length > 20);
	assert.deepEqual(within(corners, 'lasso', all), expected);
});
