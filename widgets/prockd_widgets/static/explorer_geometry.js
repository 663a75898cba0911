// Patches as places: which are scattered, enclosed, nearest or next, and how far they reach; and rows as CSV.
const NOWHERE = 0xffff; // not on the map

// all numbers below P, or some of them from all over (steps of the golden ratio)
const scattered = (P, most) => {
	if (P <= most) return Array.from({ length: P }, (_, n) => n);
	return [...new Set(Array.from({ length: most }, (_, n) => Math.floor(((n * 0.618034) % 1) * P)))];
};

// rows with the same keys as CSV; what has a comma, a quote or a line break is quoted
function csvOf(rows) {
	const keys = Object.keys(rows[0]);
	const quote = value => (/[",\r\n]/.test(value ?? '') ? `"${String(value).replaceAll('"', '""')}"` : (value ?? ''));
	const lines = [keys, ...rows.map(row => keys.map(key => row[key]))];
	return lines.map(line => line.map(quote).join(',')).join('\r\n');
}

// the patches whose centre is inside the line that was drawn
function within(path, tool, { n, x, y, patch }) {
	let line = path;
	if (tool === 'box') {
		const [a, b] = path[0];
		const [c, d] = path.at(-1);
		line = [
			[a, b],
			[c, b],
			[c, d],
			[a, d],
		];
	} else if (line.length > 160) line = line.filter((_, i) => i % Math.ceil(path.length / 160) === 0);
	const xs = line.map(([a]) => a);
	const ys = line.map(([, b]) => b);
	const inside = [];
	const [left, right, top, low] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
	// the lines that cross each row of pixels: a patch asks those of its row alone
	const rows = Array.from({ length: Math.floor(low - top) + 1 }, () => []);
	for (let s = 0, t = xs.length - 1; s < xs.length; t = s++)
		for (let r = Math.floor(Math.min(ys[s], ys[t]) - top); r <= Math.max(ys[s], ys[t]) - top; r++) rows[r].push(s);
	for (let i = 0; i < n; i++) {
		const a = x(i);
		const b = y(i);
		if (a < left || a > right || b < top || b > low) continue;
		let odd = false; // lines crossed on the way out
		for (const s of rows[Math.floor(b - top)]) {
			const t = (s || xs.length) - 1;
			if (ys[s] > b !== ys[t] > b && a < ((xs[t] - xs[s]) * (b - ys[s])) / (ys[t] - ys[s]) + xs[s]) odd = !odd;
		}
		if (odd) inside.push(patch(i));
	}
	return inside;
}

// the patch nearest to a place, -1 where none is within reach
function nearest([a, b], reach, { n, x, y, patch }) {
	let best = -1;
	let least = reach ** 2;
	for (let i = 0; i < n; i++) {
		const d = (x(i) - a) ** 2 + (y(i) - b) ** 2;
		if (d < least) {
			least = d;
			best = i;
		}
	}
	return best < 0 ? -1 : patch(best);
}

// the number of the centre next to a patch in a direction; its own where there is none
function neighbour(from, [dx, dy], { n, x, y, patch }) {
	let at = 0;
	while (at < n - 1 && patch(at) !== from) at++;
	if (patch(at) !== from) at = 0;
	let best = at;
	let least = Infinity;
	for (let i = 0; i < n; i++) {
		const a = x(i) - x(at);
		const b = y(i) - y(at);
		const ahead = a * dx + b * dy;
		const far = ahead + 3 * Math.abs(a * dy + b * dx);
		if (ahead > 2 && far < least) {
			least = far;
			best = i;
		}
	}
	return best;
}

// CSS pixels of a mark, by how many are in view
const markSize = visible =>
	visible > 150000 ? 2 : visible > 25000 ? 3 : visible > 8000 ? 4 : visible > 2500 ? 5 : visible > 600 ? 6.5 : 9;

// the middle of some patches on a map in 0..1, y downwards; null where none of them is on it
function middleOf(xy, patches) {
	let [n, x, y] = [0, 0, 0];
	for (const p of patches)
		if (p >= 0 && xy[2 * p] !== NOWHERE) {
			n++;
			x += xy[2 * p];
			y += xy[2 * p + 1];
		}
	return n ? [x / n / 65534, 1 - y / n / 65534] : null;
}

// how much of 0..1 places take in either direction
function extentOf(xy) {
	return [0, 1].map(d => {
		let [low, high] = [65534, 0];
		for (let q = 0; q < xy.length; q += 2)
			if (xy[q] !== NOWHERE) {
				low = Math.min(low, xy[q + d]);
				high = Math.max(high, xy[q + d]);
			}
		return Math.max(0.02, (high - low) / 65534);
	});
}
