import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const tries = await load(['core', 'tries'], ['arranged', 'cellText']);
const causes = await load(['core', 'causes'], ['ends', 'points']);

const rows = [
	{ try: 1, preset: 'best', changed: 'lr=0.01', z: 0.5, 'z⁺': 0.75, steps: 300 },
	{ try: 2, preset: 'plain', changed: 'nothing', z: 0.625, 'z⁺': null, steps: 20, stopped: true },
	{ try: 10, preset: 'MSE', changed: 'lr=0.02', z: 0.55, 'z⁺': 0.6, steps: 300, resumed: 2 },
];
const keys = ['try', 'preset', 'changed', 'z', 'z⁺', 'steps'];
const order = (key, down = false, words = '') => tries.arranged(rows, keys, { key, down, words }).map(row => row.try);

test('tries are sorted as numbers and as words, and what is unknown comes last', () => {
	assert.deepEqual(order('try', true), [10, 2, 1]);
	assert.deepEqual(order('z'), [1, 10, 2]);
	assert.deepEqual(order('z⁺'), [10, 1, 2]);
	assert.deepEqual(order('z⁺', true), [1, 10, 2]);
	assert.deepEqual(order('preset'), [1, 10, 2]);
	assert.deepEqual(order(''), [1, 2, 10]);
});

test('the filter wants every word, in any cell, as it is read', () => {
	assert.deepEqual(order('try', false, 'LR=0'), [1, 10]);
	assert.deepEqual(order('try', false, 'lr=0.02 mse'), [10]);
	assert.deepEqual(order('try', false, '62.5%'), [2]);
	assert.deepEqual(order('try', false, 'stopped'), [2]);
	assert.deepEqual(order('try', false, 'nobody'), []);
});

test('cells say what a person reads', () => {
	assert.deepEqual(
		keys.map(key => tries.cellText(rows[1], key)),
		['2', 'plain', 'nothing', '62.5%', '–', '20, stopped'],
	);
	assert.equal(tries.cellText(rows[2], 'try'), '10, went on from 2');
});

test('an interval lies where its points are and is never too thin to be seen', () => {
	assert.deepEqual(causes.ends([-5, 0, 5], 10), { left: 25, width: 50, dot: 50 });
	assert.deepEqual(causes.ends([2, 2, 2], 10), { left: 60, width: 0.5, dot: 60 });
	assert.deepEqual(causes.ends([-99, -99, 99], 10), { left: 0, width: 100, dot: 0 });
	assert.deepEqual([1.25, -0.31, 0].map(causes.points), ['+1.3', '−0.3', '0.0']);
});
