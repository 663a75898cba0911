// How dense patches lie on a map: contours, the place where each kind is densest, and room for its label. Pure numbers.

// counts of n places in 0..1 on a grid of G x G, smoothed; x(i) < 0 is nowhere
function densityOf(n, x, y, G) {
	let cells = new Float32Array(G * G);
	const cell = v => clamp(Math.floor(v * G), 0, G - 1);
	for (let i = 0; i < n; i++) if (x(i) >= 0) cells[cell(y(i)) * G + cell(x(i))]++;
	for (let pass = 0; pass < 3; pass++) cells = blurred(cells, G);
	return cells;
}

// the mean of 3 x 3 cells, row by row and then column by column; what lies outside is empty
function blurred(cells, G) {
	const rows = new Float32Array(G * G);
	const out = new Float32Array(G * G);
	for (let i = 0; i < G * G; i++) {
		const a = i % G;
		rows[i] = (cells[i] + (a ? cells[i - 1] : 0) + (a < G - 1 ? cells[i + 1] : 0)) / 3;
	}
	for (let i = 0; i < G * G; i++) out[i] = (rows[i] + (rows[i - G] || 0) + (rows[i + G] || 0)) / 3;
	return out;
}

// A picture of W pixels a row in which more patches are more opaque: grey, or the mean colour of those that stand out,
// in squares of so many pixels. Each patch lies at X, Y and has a colour as ABGR: 0 where it does not stand out, 1 for
// what is left out
function shade(out, W, { X, Y, colours, size, grey }) {
	const [across, down] = [Math.floor(W / size), Math.floor(out.length / W / size)];
	const [all, front, red, green, blue] = Array.from({ length: 5 }, () => new Float32Array(across * down));
	let most = 0;
	for (let p = 0; p < colours.length; p++) {
		const colour = colours[p];
		const x = Math.floor(X[p] / size);
		const y = Math.floor(Y[p] / size);
		if (colour === 1 || x < 0 || y < 0 || x >= across || y >= down) continue;
		const at = y * across + x;
		most = Math.max(most, ++all[at]);
		if (!colour) continue;
		front[at]++;
		red[at] += colour & 255;
		green[at] += (colour >> 8) & 255;
		blue[at] += (colour >> 16) & 255;
	}
	for (let at = 0; at < all.length; at++) {
		if (!all[at]) continue;
		const share = Math.sqrt(front[at] / all[at]);
		const mixed = (sum, from) => (front[at] ? (share * sum[at]) / front[at] : 0) + (1 - share) * ((grey >> from) & 255);
		const least = front[at] ? 0.6 : 0.25; // what stands out is seen where it is rare too
		const opaque = 255 * (least + ((1 - least) * Math.log1p(all[at])) / Math.log1p(most));
		const colour = ((opaque << 24) | (mixed(blue, 16) << 16) | (mixed(green, 8) << 8) | mixed(red, 0)) >>> 0;
		const corner = Math.floor(at / across) * size * W + (at % across) * size;
		for (let y = 0; y < size; y++) out.fill(colour, corner + y * W, corner + y * W + size);
	}
}

// the heights above which lie these shares of all that is counted
function levelsOf(cells, shares) {
	const high = cells.slice().sort().reverse();
	const total = high.reduce((a, b) => a + b, 0);
	return shares.map(share => {
		let i = 0;
		for (let sum = high[0]; sum < share * total && i < high.length - 1; sum += high[i]) i++;
		const below = high.find(v => v < 0.999 * high[i]) || 0;
		return (high[i] + below) / 2; // between two heights, so that no line runs through a cell
	});
}

// line pieces x0, y0, x1, y1 in 0..1 along which the grid has this height
function contour(cells, G, level) {
	const lines = [];
	const value = (a, b) => (a < 0 || b < 0 || a >= G || b >= G ? 0 : cells[b * G + a]);
	const at = (a, b) => [(a + 0.5) / G, (b + 0.5) / G];
	const cut = ([a, b], [c, d]) => {
		const [from, to] = [value(a, b), value(c, d)];
		const t = (level - from) / (to - from);
		const [p, q] = [at(a, b), at(c, d)];
		return [p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])];
	};
	for (let b = -1; b < G; b++)
		for (let a = -1; a < G; a++) {
			const corners = [
				[a, b],
				[a + 1, b],
				[a + 1, b + 1],
				[a, b + 1],
			];
			const high = corners.map(([c, d]) => value(c, d) > level);
			if (high.every(h => h === high[0])) continue;
			const ends = [];
			for (let s = 0; s < 4; s++) if (high[s] !== high[(s + 1) % 4]) ends.push(cut(corners[s], corners[(s + 1) % 4]));
			for (let s = 0; s + 1 < ends.length; s += 2) lines.push([...ends[s], ...ends[s + 1]]);
		}
	return lines;
}

// for each of K kinds where it is densest in 0..1, and how many there are; null for a kind without a place
function densest(n, x, y, kind, K, G = 40) {
	const cells = new Float32Array(K * G * G);
	const sizes = new Uint32Array(K);
	const cell = v => clamp(Math.floor(v * G), 0, G - 1);
	for (let i = 0; i < n; i++) {
		const k = kind(i);
		if (k < 0 || x(i) < 0) continue;
		sizes[k]++;
		cells[(k * G + cell(y(i))) * G + cell(x(i))]++;
	}
	return Array.from(sizes, (size, k) => {
		if (!size) return null;
		const mine = blurred(cells.subarray(k * G * G, (k + 1) * G * G), G);
		let best = 0;
		for (let i = 1; i < mine.length; i++) if (mine[i] > mine[best]) best = i;
		return { k, size, x: ((best % G) + 0.5) / G, y: (Math.floor(best / G) + 0.5) / G };
	});
}

// for each of K kinds the part of L that more than half of its patches lie on, 0 for none or the first, the background
function mostly(label, part, K, L) {
	const counts = Array.from({ length: K }, () => new Uint32Array(L));
	for (let p = 0; p < part.length; p++) if (label[p] < K && part[p] < L) counts[label[p]][part[p]]++;
	return counts.map(row => {
		const half = row.reduce((sum, count) => sum + count, 0) / 2;
		return Math.max(
			0,
			row.findIndex(count => count > half),
		);
	});
}

// labels { x, y, width } that lie inside and on no earlier one, in pixels around their middle
function withRoom(labels, W, H, high = 15) {
	const kept = [];
	for (const label of labels) {
		const x = clamp(label.x, label.width / 2 + 3, W - label.width / 2 - 3);
		const y = clamp(label.y, high / 2 + 2, H - high / 2 - 2);
		if (label.x < 0 || label.y < 0 || label.x > W || label.y > H) continue;
		const free = kept.every(
			other => Math.abs(other.x - x) > (other.width + label.width) / 2 + 4 || Math.abs(other.y - y) > high,
		);
		if (free) kept.push({ ...label, x, y });
	}
	return kept;
}
