import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { contour, densest, densityOf, levelsOf, mostly, shade, withRoom } = await load(
	['core', 'explorer_density'],
	['contour', 'densest', 'densityOf', 'levelsOf', 'mostly', 'shade', 'withRoom'],
);

// 90 places around (0.25, 0.25), 10 around (0.75, 0.75), one nowhere
const PLACES = Array.from({ length: 101 }, (_, i) => {
	const middle = i < 90 ? 0.25 : 0.75;
	return i === 100 ? [-1, -1] : [middle + 0.02 * Math.cos(i), middle + 0.02 * Math.sin(i)];
});
const x = i => PLACES[i][0];
const y = i => PLACES[i][1];

test('density counts every place once, and those that are nowhere not at all', () => {
	const cells = densityOf(101, x, y, 32);
	assert.ok(Math.abs(cells.reduce((a, b) => a + b, 0) - 100) < 0.01);
	const best = cells.indexOf(Math.max(...cells));
	assert.deepEqual(
		[best % 32, Math.floor(best / 32)].map(v => Math.abs(v - 8) < 2),
		[true, true],
	);
});

test('a contour goes round what it encloses, as closed lines', () => {
	const cells = densityOf(101, x, y, 32);
	const [level] = levelsOf(cells, [0.95]);
	const lines = contour(cells, 32, level);
	const ends = new Map();
	for (const [a, b, c, d] of lines)
		for (const end of [`${a.toFixed(4)},${b.toFixed(4)}`, `${c.toFixed(4)},${d.toFixed(4)}`])
			ends.set(end, (ends.get(end) || 0) + 1);
	assert.ok(lines.length > 8);
	assert.deepEqual([...new Set(ends.values())], [2]);
	const [high, low] = levelsOf(cells, [0.3, 0.9]);
	assert.ok(high > low);
	assert.equal(contour(cells, 32, high).filter(([a]) => a > 0.5).length, 0);
});

test('each kind is densest where most of it lies', () => {
	const [first, second, none] = densest(101, x, y, i => (i < 90 ? 0 : 1), 3);
	assert.ok(Math.hypot(first.x - 0.25, first.y - 0.25) < 0.05);
	assert.ok(Math.hypot(second.x - 0.75, second.y - 0.75) < 0.05);
	assert.deepEqual([first.size, second.size, none], [90, 10, null]);
});

test('labels that would lie on an earlier one, or outside, are left out; those at the edge move in', () => {
	const labels = [
		{ x: 50, y: 50, width: 30 },
		{ x: 55, y: 52, width: 30 },
		{ x: 50, y: 80, width: 30 },
		{ x: 1, y: 20, width: 30 },
		{ x: 300, y: 20, width: 30 },
	];
	const kept = withRoom(labels, 100, 100);
	assert.deepEqual(
		kept.map(({ x, y }) => [x, y]),
		[
			[50, 50],
			[50, 80],
			[18, 20],
		],
	);
});

test('a kind is named by the part that more than half of its patches lie on, never by the background', () => {
	const label = Uint16Array.from([0, 0, 0, 1, 1, 1, 2, 2, 65535]);
	const part = Uint8Array.from([2, 2, 0, 0, 0, 1, 1, 2, 1]);
	assert.deepEqual(mostly(label, part, 4, 3), [2, 0, 0, 0]);
});

test('a dense map is more opaque where more patches lie, and what stands out keeps its colour', () => {
	const out = new Uint32Array(8 * 4);
	const red = 0xff0000ff; // ABGR
	const X = [0, 1, 0, 1, 4, 6, 7, -9, 2];
	const Y = [0, 0, 1, 1, 0, 2, 3, 0, 2];
	const colours = [0, 0, 0, 0, 0, red, red, red, 1];
	shade(out, 8, { X, Y, colours, size: 2, grey: 0xff808080 });
	const [many, one, chosen] = [out[0], out[4], out[2 * 8 + 6]];
	assert.equal(many >>> 24, 255);
	assert.ok(one >>> 24 < many >>> 24 && one >>> 24 > 60);
	assert.equal(one & 0xffffff, 0x808080);
	assert.equal(chosen & 0xffffff, 0x0000ff, 'the mean of two reds is red');
	assert.deepEqual([out[1], out[8], out[9]], [many, many, many], 'a square of 2 x 2');
	assert.equal(out.filter(Boolean).length, 3 * 4, 'what is left out or outside is not drawn');
});
