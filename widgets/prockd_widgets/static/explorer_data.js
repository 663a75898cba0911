// What the kernel sent to the explorer, and what follows from it: numbers in, numbers out, no page.
const NONE = 0xffff; // no prototype
const NOWHERE = 0xffff; // not on the map

class ExplorerData {
	constructor(model) {
		const meta = model.get('meta');
		const [h, w] = meta.grid;
		Object.assign(this, { model, meta, h, w, N: h * w, P: meta.patches, M: meta.patches / (h * w) });
		this.shown = shownOf(meta);
		this.numShown = this.shown.reduce((a, b) => a + b, 0);
		this.sort = ['size', -1];
		this.codes = [];
		this.readBanks();
		this.readPlaces();
		this.readSelection();
	}

	get bank() {
		return this.meta.models[this.which].bank;
	}

	get which() {
		return this.model.get('model');
	}

	get likeness() {
		return this.model.get('show') === 'likeness';
	}

	state(i) {
		return this.banks[this.meta.models[i].bank];
	}

	// the image of a patch
	at(p) {
		return Math.floor(p / this.N);
	}

	names(i = this.which) {
		return this.state(i).names;
	}

	part(p) {
		return this.meta.parts ? this.meta.parts[this.parts()[p]] : '';
	}

	parts() {
		this.partsOf ||= u8(this.model.get('parts'));
		return this.partsOf;
	}

	className(m) {
		const label = this.meta.labels[m];
		return label >= 0 ? `${this.meta.classes[label]}, ` : '';
	}

	// the strongest prototype of each patch, with names and switches as they are now
	readBanks() {
		const T = this.meta.count;
		this.soft = this.meta.models.map((_, i) => {
			const data = u8(this.model.get('top')[i]);
			const { enabled, merged } = this.state(i);
			const K = enabled.length;
			const which = K > 256 ? u16(data.subarray(0, 2 * this.P * T)) : data.subarray(0, this.P * T);
			const share = data.subarray(data.length - this.P * T);
			const label = new Uint16Array(this.P).fill(NONE);
			const target = Int32Array.from(merged, k => (enabled[k] ? k : -1));
			const sum = new Float32Array(K);
			for (let p = 0; p < this.P; p++) {
				if (!this.shown[p]) continue;
				let best = 0;
				for (let t = p * T; t < (p + 1) * T; t++) {
					const k = target[which[t]];
					if (k < 0) continue;
					sum[k] += share[t];
					if (sum[k] > best || (sum[k] === best && label[p] === NONE)) {
						best = sum[k];
						label[p] = k;
					}
				}
				for (let t = p * T; t < (p + 1) * T; t++) if (target[which[t]] >= 0) sum[target[which[t]]] = 0;
			}
			return { which, share, label, target, T };
		});
		this.rowsOf = null;
	}

	// how much of patch p belongs to prototype k; disabled ones pass theirs on
	share(i, p, k) {
		const { which, share, target, T } = this.soft[i];
		let mine = 0;
		let lost = 0;
		for (let t = p * T; t < (p + 1) * T; t++) {
			if (target[which[t]] < 0) lost += share[t];
			else if (target[which[t]] === k) mine += share[t];
		}
		return mine && Math.min(1, mine / Math.max(1, 255 - lost));
	}

	readPlaces() {
		this.places = this.model.get('xy').map(u16);
		this.placed = [];
	}

	readSelection() {
		this.selected = u32(this.model.get('selection'));
		this.mask = new Uint8Array(this.P);
		for (const p of this.selected) this.mask[p] = 1;
	}

	// likeness to the boxed patch, kept until another one is boxed
	like(i) {
		const p = this.patch;
		const key = `${i}/${p}`;
		if (p < 0) return null;
		this.codes[i] ||= new Codes(this.model.get('codes')[i], this.meta.models[i].steps, this.P);
		this.liked ||= [];
		if (this.liked[i]?.key !== key) this.liked[i] = { key, values: this.codes[i].like(p) };
		return this.liked[i].values;
	}

	// prototypes that are matched share colour and shape
	hue(i, k) {
		return i ? this.meta.match[k] : k;
	}

	// the prototype in focus, as model i knows it
	focus(i) {
		const k = this.prototype;
		const from = this.which;
		const match = this.meta.match;
		if (k < 0 || i === from || !match) return k;
		return i === 0 ? match[k] : match.indexOf(k);
	}

	// the second model's strongest prototype in the first one's numbers
	matched(p) {
		const l = this.soft[1].label[p];
		return l === NONE ? NONE : this.meta.match[l];
	}

	agrees(p) {
		return this.shown[p] && this.matched(p) === this.soft[0].label[p];
	}

	// the patches that prefer a prototype
	mine(i, k) {
		const { label } = this.soft[i];
		const patches = [];
		for (let p = 0; p < this.P; p++) if (label[p] === k) patches.push(p);
		return patches;
	}

	// selected patches, else those of a prototype, the strongest first; without a prototype some from all over
	strongest(i, k) {
		const { P } = this;
		let all = this.selected;
		if (!all.length) all = k < 0 ? scattered(P, 200).filter(p => this.shown[p]) : this.mine(i, k);
		if (k < 0) return Array.from(all);
		// share and number in one number, since numbers are sorted ten times faster than by a function
		const keys = Float64Array.from(all, p => Math.round((1 - this.share(i, p, k)) * 1e6) * P + p);
		return Array.from(keys.sort(), key => key % P);
	}

	// the best patch of each image, best image first
	mostAlike(i) {
		const like = this.like(i);
		return bestOfEach(like, this.N).sort((a, b) => like[b] - like[a]);
	}

	heatOf(i, m) {
		if (this.likeness) return this.like(i)?.subarray(m * this.N, (m + 1) * this.N);
		const k = this.focus(i);
		return k < 0 ? null : Float32Array.from({ length: this.N }, (_, n) => this.share(i, m * this.N + n, k));
	}

	// for each patch a number for colour and shape, -1 for grey; and the legend
	colouring(i) {
		const by = this.colour_by;
		const { label } = this.soft[i];
		const parts = this.parts();
		const names = this.names(i);
		const M = this.meta;
		if (by === 'part' && M.parts) return { of: p => parts[p] - 1, texts: M.parts.slice(1) };
		if (by === 'class') return { of: p => (this.shown[p] ? M.labels[this.at(p)] : -1), texts: M.classes };
		if (by === 'agreement' && this.soft[1])
			return {
				of: p => (this.agrees(p) ? 0 : this.shown[p] ? 1 : -1),
				texts: ['same prototype', 'different ones'],
			};
		return { of: p => (label[p] === NONE ? -1 : this.hue(i, label[p])), texts: names };
	}

	// numbers of each prototype, in the order asked for
	table(i) {
		const { label } = this.soft[i];
		const { names, enabled, merged } = this.state(i);
		const stats = this.stats[i];
		const K = names.length;
		const size = new Uint32Array(K);
		const L = this.meta.parts?.length || 0;
		for (const k of label) if (k !== NONE) size[k]++;
		const rows = names.map((name, k) => {
			const { entropy, near, other, alike, part = 0, share, clearest = [] } = stats[k] || {};
			const marks = enabled[k] ? clearest.map(l => `clearest ${this.meta.parts[l]}`) : [];
			if (merged[k] !== k) marks.push(`in ${names[merged[k]]}`);
			else if (!enabled[k]) marks.push('off');
			else if (!size[k]) marks.push('dead');
			if (enabled[k] && alike > 0.95) marks.push(`twin of ${names[other]}`);
			return {
				k,
				name,
				size: size[k],
				part,
				purity: size[k] ? (share ?? -1) : -1,
				entropy,
				best: near?.[0]?.[0] ?? -1,
				other,
				alike,
				marks,
				off: !enabled[k],
			};
		});
		const [key, way] = this.sort;
		const value = row =>
			key === 'purity'
				? (row.part && 9 - row.part / L) + row.purity / L
				: key === 'other'
					? row.alike
					: (row[key] ?? 2);
		return rows.sort(
			(a, b) =>
				a.off - b.off ||
				way * (key === 'name' ? a.name.localeCompare(b.name, 'en', { numeric: true }) : value(a) - value(b)) ||
				a.k - b.k,
		);
	}

	rows() {
		const all = Array.from({ length: this.P }, (_, p) => p).filter(p => this.shown[p]);
		return Array.from(this.selected.length ? this.selected : all, p => {
			const m = this.at(p);
			const row = {
				patch: p,
				image: this.meta.folder + this.meta.ids[m],
				row: Math.floor((p % this.N) / this.w),
				column: p % this.w,
			};
			this.meta.models.forEach((model, i) => {
				const k = this.soft[i].label[p];
				const tail = i ? `_${model.name}` : '';
				Object.assign(row, {
					[`prototype${tail}`]: k === NONE ? null : k,
					[`name${tail}`]: k === NONE ? '' : this.names(i)[k],
					[`assignment${tail}`]: k === NONE ? null : +this.share(i, p, k).toFixed(3),
				});
			});
			if (this.meta.parts) row.part = this.part(p);
			return {
				...row,
				class: this.meta.classes[this.meta.labels[m]] ?? '',
				seed: this.meta.seed,
				data: this.meta.data,
			};
		});
	}
}

for (const name of [
	'prototype',
	'patch',
	'image',
	'banks',
	'past',
	'stats',
	'smooth',
	'opacity',
	'colour_by',
	'map_note',
	'status',
])
	Object.defineProperty(ExplorerData.prototype, name, {
		get() {
			return this.model.get(name);
		},
	});
