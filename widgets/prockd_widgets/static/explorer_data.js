// What the kernel sent to the explorer, and what follows from it: numbers in, numbers out, no page.
const NONE = 0xffff; // no prototype
const TIED = 0.35; // how often the same place of another image must be a prototype's too, to call it a place
const LIVES = 0.8; // share of its patches in one image or group, to say so

// how much of patch p belongs to prototype k; disabled ones pass theirs on
function shareOf({ which, share, target, T }, p, k) {
	let mine = 0;
	let lost = 0;
	for (let t = p * T; t < (p + 1) * T; t++) {
		const to = target[which[t]];
		if (to === k) mine += share[t];
		else if (to < 0) lost += share[t];
	}
	return mine && Math.min(1, mine / Math.max(1, 255 - lost));
}

// whether each word that was typed begins a word of what is said: "ear" finds no "clearest"
const begins = (said, typed) => {
	const words = said.toLowerCase().split(/[\s,]+/);
	const asked = typed.toLowerCase().split(/\s+/).filter(Boolean);
	return asked.every(word => words.some(other => other.startsWith(word)));
};

class ExplorerData {
	constructor(model) {
		const meta = model.get('meta');
		const [h, w] = meta.grid;
		Object.assign(this, { model, meta, h, w, N: h * w, P: meta.patches, M: meta.patches / (h * w) });
		this.numShown = shownOf(meta).reduce((a, b) => a + b, 0);
		this.filter = { keep: 'all', pictures: 'all' };
		this.strip = 'top';
		this.readOwn();
		this.contours = [];
		this.sort = ['size', -1];
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

	// until a patch is boxed nothing is like it
	get likeness() {
		return this.model.get('show') === 'likeness' && this.patch >= 0;
	}

	state(i) {
		return this.banks[this.meta.models[i].bank];
	}

	// a picture of one's own is one more image after the others: its patches have numbers from P on, and are not counted
	readOwn() {
		const own = this.model.get('own');
		this.own = own?.top ? own : null;
		this.codes = [];
		this.liked = [];
		const shown = shownOf(this.meta);
		const share = this.own ? u8(this.own.top[0]).subarray(-this.N * this.meta.count) : [];
		const some = Uint8Array.from({ length: share.length / this.meta.count }, (_, n) =>
			share.subarray(n * this.meta.count, (n + 1) * this.meta.count).some(v => v > 0),
		);
		this.shown = this.own ? joined([shown, some]) : shown;
		this.kept = shown; // what filters leave
		this.numKept = this.numShown;
	}

	idOf(m) {
		return m < this.M ? `image ${this.meta.ids[m]}` : this.own?.name || '';
	}

	// the image of a patch
	at(p) {
		return Math.floor(p / this.N);
	}

	names(i = this.which) {
		return this.state(i).names;
	}

	part(p) {
		return this.meta.parts?.[this.parts()[p]] ?? '';
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
		const all = this.shown.length;
		this.soft = this.meta.models.map((_, i) => {
			const { enabled, merged } = this.state(i);
			const K = enabled.length;
			const sent = [this.model.get('top')[i], ...(this.own ? [this.own.top[i]] : [])].map(u8);
			const cut = (data, n) => (K > 256 ? u16(data.subarray(0, 2 * n)) : data.subarray(0, n));
			const sizes = [this.P * T, this.N * T];
			const which = joined(sent.map((data, j) => cut(data, sizes[j])));
			const share = joined(sent.map((data, j) => data.subarray(data.length - sizes[j])));
			const label = new Uint16Array(all).fill(NONE);
			const target = Int32Array.from(merged, k => (enabled[k] ? k : -1));
			const sum = new Float32Array(K);
			const { shown } = this;
			const alone = target.every((to, k) => to < 0 || to === k); // nothing is merged: the first that is on
			for (let p = 0; p < all; p++) {
				if (!shown[p]) continue;
				if (alone) {
					let t = p * T;
					while (t < (p + 1) * T && target[which[t]] < 0) t++;
					if (t < (p + 1) * T) label[p] = which[t];
					continue;
				}
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
			return { which, share, label, target, T, shares: {} };
		});
		this.rowsOf = null;
	}

	// how much of each patch belongs to prototype k, and the most of any; kept for some k
	shares(i, k) {
		const soft = this.soft[i];
		if (soft.shares[k]) return soft.shares[k];
		const values = new Float32Array(this.shown.length);
		let most = 0;
		for (let p = 0; p < values.length; p++) {
			values[p] = shareOf(soft, p, k);
			if (values[p] > most) most = values[p];
		}
		if (Object.keys(soft.shares).length > 3) soft.shares = {};
		soft.shares[k] = { values, most: most || 1 };
		return soft.shares[k];
	}

	share(i, p, k) {
		return shareOf(this.soft[i], p, k);
	}

	// where the heat and the histogram of prototype k end, for all images
	most(i, k) {
		return this.shares(i, k).most;
	}

	readPlaces() {
		const [L, all] = [this.meta.models.length, this.model.get('xy')];
		const map = Math.max(
			0,
			this.model.get('maps').findIndex(({ name }) => name === this.on_map),
		);
		this.placesOf = all[map * L]; // what they were read from
		this.places = all.slice(map * L, map * L + L).map(u16);
		this.extents = this.places.map(extentOf);
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
		const sent = [this.model.get('codes')[i], ...(this.own ? [this.own.codes[i]] : [])].map(u8);
		this.codes[i] ||= new Codes(joined(sent), this.meta.models[i].steps, this.shown.length);
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

	// the best patch of each image, best image first
	mostAlike(i) {
		const like = this.like(i);
		return bestOfEach(like.subarray(0, this.P), this.N).sort((a, b) => like[b] - like[a]);
	}

	heatOf(i, m, k = this.focus(i)) {
		if (this.likeness) return this.like(i)?.subarray(m * this.N, (m + 1) * this.N);
		return k < 0 ? null : this.shares(i, k).values.subarray(m * this.N, (m + 1) * this.N);
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
		if (by === 'group') {
			const group = names.map((_, k) => this.stats[0][this.hue(i, k)]?.group ?? -1);
			return { of: p => (label[p] === NONE ? -1 : group[label[p]]), texts: this.groupNames() };
		}
		const hues = names.map((_, k) => this.hue(i, k));
		const k = this.focus(i);
		if (k >= 0 && names.length > 8 && !this.selected.length) {
			const near = new Set([k, ...(this.stats[i][k]?.beside || [])]);
			for (const other of hues.keys()) if (!near.has(other)) hues[other] = -1;
		}
		return { of: p => (label[p] === NONE ? -1 : hues[label[p]]), texts: this.names(0) };
	}

	// what groups of prototypes are called: after the one that a person named, or the largest
	groupNames() {
		const names = this.names(0);
		const size = new Uint32Array(names.length);
		for (const k of this.soft[0].label.subarray(0, this.P)) if (k !== NONE) size[k]++;
		const groups = [];
		const order = [...names.keys()].sort(
			(a, b) => /^p\d+$/.test(names[a]) - /^p\d+$/.test(names[b]) || size[b] - size[a],
		);
		for (const k of order) {
			const group = this.stats[0][k]?.group ?? 0;
			groups[group] ||= [];
			groups[group].push(names[k]);
		}
		return Array.from(groups, ([first, ...rest] = ['']) => (rest.length ? `${first} + ${rest.length}` : first));
	}

	// what is said of each prototype, in the order asked for
	table(i) {
		const { label } = this.soft[i];
		const { names, enabled, merged } = this.state(i);
		const stats = this.stats[i];
		const size = new Uint32Array(names.length);
		const L = this.meta.parts?.length || 0;
		for (let p = 0; p < this.P; p++) if (label[p] !== NONE) size[label[p]]++;
		const rows = names.map((name, k) => {
			const { near, clearest = [], part = 0, share, other, alike, ...measured } = stats[k] || {};
			const marks = [];
			if (enabled[k] && clearest.length) marks.push(`clearest ${clearest.map(l => this.meta.parts[l]).join(', ')}`);
			if (merged[k] !== k) marks.push(`in ${names[merged[k]]}`);
			else if (!enabled[k]) marks.push('off');
			else if (!size[k]) marks.push('dead');
			if (enabled[k] && alike > 0.95) marks.push(`twin of ${names[other]}`);
			if (enabled[k] && size[k] && measured.place > TIED) marks.push('a place');
			if (enabled[k] && size[k] && measured.owner > LIVES) marks.push(`one ${this.meta.groups ? 'group' : 'image'}`);
			const purity = size[k] ? (share ?? -1) : -1;
			const best = near?.[0]?.[0] ?? -1;
			return { k, name, size: size[k], part, purity, best, other, alike, marks, off: !enabled[k], ...measured };
		});
		const [key, way] = this.sort;
		const last = way > 0 ? 99 : -99;
		const value = row =>
			key === 'purity'
				? (row.part && 9 - row.part / L) + row.purity / L
				: key === 'other'
					? row.alike
					: (row[key] ?? last);
		return rows.sort(
			(a, b) =>
				a.off - b.off ||
				way * (key === 'name' ? a.name.localeCompare(b.name, 'en', { numeric: true }) : value(a) - value(b)) ||
				a.k - b.k,
		);
	}

	rows() {
		const all = Array.from({ length: this.P }, (_, p) => p).filter(p => this.kept[p]);
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
	'future',
	'stats',
	'smooth',
	'opacity',
	'colour_by',
	'map_note',
	'on_map',
	'status',
])
	Object.defineProperty(ExplorerData.prototype, name, {
		get() {
			return this.model.get(name);
		},
	});
