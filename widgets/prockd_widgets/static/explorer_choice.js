// Which patches are looked at: filters, strips, the histogram of assignment, and what is counted among them.
const BINS = 25;
const STRIPS = {
	top: ['Top', 'strongest first'],
	middle: ['Middle', 'those of middling strength first: the top flatters every prototype'],
	random: ['Random', 'at random'],
	owners: ['One each', 'the strongest of each'],
};

class ExplorerChoice extends ExplorerData {
	// keep: all or front; pictures: all, this, class:N, right or wrong
	readFilter() {
		const { keep, pictures } = this.filter;
		const { answers, labels } = this.meta;
		const parts = this.parts();
		const { label } = this.soft[0];
		const [kind, number] = pictures.split(':');
		const wanted = {
			all: () => true,
			this: m => m === this.image,
			class: m => labels[m] === +number,
			right: m => labels[m] >= 0 && answers[m] === labels[m],
			wrong: m => labels[m] >= 0 && answers[m] !== labels[m],
		}[kind];
		const front = this.meta.parts
			? p => parts[p] > 0
			: p => label[p] !== NONE && this.stats[0][label[p]]?.front !== false;
		const kept = new Uint8Array(this.shown.length);
		this.numKept = 0;
		if (keep === 'all' && pictures === 'all') {
			kept.set(this.shown.subarray(0, this.P));
			this.numKept = this.numShown;
		} else
			for (let m = 0; m < this.M; m++)
				if (wanted(m))
					for (let p = m * this.N; p < (m + 1) * this.N; p++)
						if (this.shown[p] && (keep === 'all' || front(p))) {
							kept[p] = 1;
							this.numKept++;
						}
		this.kept = kept;
		this.contours = [];
	}

	// the patches that prefer a prototype
	mine(i, k) {
		const { label } = this.soft[i];
		const patches = [];
		for (let p = 0; p < this.P; p++) if (label[p] === k && this.kept[p]) patches.push(p);
		return patches;
	}

	// selected patches, else those of a prototype, in the order of the strip; without a prototype some from all over
	strongest(i, k) {
		const { P } = this;
		let all = this.selected;
		if (!all.length) all = k < 0 ? scattered(P, 200).filter(p => this.kept[p]) : this.mine(i, k);
		if (k < 0) return Array.from(all);
		const sorted = falling(all, this.shares(i, k).values);
		const { groups } = this.meta;
		return inStrip(sorted, this.strip, groups ? p => groups[this.at(p)] : p => this.at(p));
	}

	// how many patches have which assignment to prototype k, or likeness to the box: all, and those that prefer k. It
	// ends at the greatest assignment
	histogram(i, k) {
		const like = this.likeness ? this.like(i) : null;
		const { label } = this.soft[i];
		const all = new Uint32Array(BINS);
		const mine = new Uint32Array(BINS);
		const values = new Float32Array(this.P);
		if (k < 0 && !like) return { all, mine, values, end: 1 };
		const [of, end] = like ? [like, 1] : [this.shares(i, k).values, this.most(i, k)];
		const { kept } = this;
		for (let p = 0; p < values.length; p++) {
			if (!kept[p]) continue;
			const value = Math.max(0, of[p]);
			values[p] = value;
			if (value <= 0) continue;
			const bin = Math.min(BINS - 1, Math.floor((value / end) * BINS));
			all[bin]++;
			if (like || label[p] === k) mine[bin]++;
		}
		return { all, mine, values, end };
	}

	// of each prototype how many patches prefer it, and how many of those are selected, or left by the filters
	tallies(i) {
		const { label } = this.soft[i];
		const size = new Uint32Array(this.names(i).length);
		const now = new Uint32Array(size.length);
		const mask = this.selected.length ? this.mask : this.kept;
		for (let p = 0; p < this.P; p++) {
			if (label[p] === NONE) continue;
			size[label[p]]++;
			now[label[p]] += mask[p];
		}
		return { size, now, some: this.selected.length > 0 || this.numKept < this.numShown };
	}
}

// patches by their values in 0..1, the largest first; those with the same 65,536th in the order they come in. Values are
// counted and not compared: a million are in order within some frames
function falling(patches, values) {
	const levels = new Uint16Array(patches.length);
	const next = new Uint32Array(65537);
	for (let at = 0; at < levels.length; at++) {
		levels[at] = 65535 * (1 - values[patches[at]]);
		next[levels[at] + 1]++;
	}
	for (let level = 0; level < 65536; level++) next[level + 1] += next[level];
	const sorted = new Uint32Array(levels.length);
	for (let at = 0; at < levels.length; at++) sorted[next[levels[at]]++] = patches[at];
	return sorted;
}

// patches, strongest first, in another order
function inStrip(sorted, strip, ownerOf) {
	if (strip === 'middle') {
		const middle = (sorted.length - 1) / 2;
		const order = sorted.map((_, rank) => rank).sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle) || a - b);
		return order.map(rank => sorted[rank]);
	}
	if (strip === 'random') {
		const keys = new Map(Array.from(sorted, p => [p, Math.imul(p + 1, 0x9e3779b1) >>> 0]));
		return [...sorted].sort((a, b) => keys.get(a) - keys.get(b));
	}
	if (strip !== 'owners') return sorted;
	const seen = new Set();
	return sorted.filter(p => !seen.has(ownerOf(p)) && seen.add(ownerOf(p)));
}
