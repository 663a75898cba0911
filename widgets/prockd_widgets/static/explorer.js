
// PrototypeExplorer: one map, one grid, one image and one table that share a selection.
const NONE = 0xFFFF;

class Explorer {
	constructor(model, host, sheet) {
		Object.assign(this, { model, host, sheet, hover: -1, tool: 'lasso', page: 0, sort: ['size', -1], thumbs: {}, zoom: 1, mids: model.get('xy').map(() => [.5, .5]) });
		this.meta = model.get('meta');
		[this.h, this.w] = this.meta.grid;
		this.N = this.h * this.w;
		this.P = this.meta.patches;
		this.M = this.P / this.N;
		this.codes = [];
		this.redraw = soon(() => this.draw());
		this.build();
		this.readBanks();
		this.readPlaces();
		this.readSelection();
		this.ends = [watch(this.root, () => this.redraw(), () => this.redraw())];
		const on = (names, f) => {
			const event = names.split(' ').map(name => `change:${name}`).join(' ');
			model.on(event, f);
			this.ends.push(() => model.off(event, f));
		};
		on('banks top stats meta', () => { this.meta = model.get('meta'); this.readBanks(); this.redraw(); });
		on('xy', () => { this.readPlaces(); this.redraw(); });
		on('map_note', () => this.note());
		on('selection', () => { this.readSelection(); this.page = 0; this.redraw(); });
		on('prototype patch image model show colour_by smooth opacity', () => { this.page = 0; this.redraw(); });
		on('status', () => this.tell(this.status));
		this.redraw();
	}

	// What the kernel sent

	get bank() { return this.meta.models[this.which].bank; }
	get which() { return this.model.get('model'); }
	get likeness() { return this.model.get('show') === 'likeness'; }
	state(i) { return this.banks[this.meta.models[i].bank]; }
	at(p) { return Math.floor(p / this.N); } // the image of a patch
	names(i = this.which) { return this.state(i).names; }

	readBanks() { // the strongest prototype of each patch, with names and switches as they are now
		const T = this.meta.count;
		this.soft = this.meta.models.map((_, i) => {
			const data = u8(this.model.get('top')[i]), { enabled, merged } = this.state(i), K = enabled.length;
			const which = K > 256 ? u16(data.subarray(0, 2 * this.P * T)) : data.subarray(0, this.P * T);
			const share = data.subarray(data.length - this.P * T), label = new Uint16Array(this.P).fill(NONE);
			const target = Int32Array.from(merged, k => enabled[k] ? k : -1), sum = new Float32Array(K);
			for (let p = 0; p < this.P; p++) {
				let best = 0;
				for (let t = p * T; t < (p + 1) * T; t++) {
					const k = target[which[t]];
					if (k < 0) continue;
					sum[k] += share[t];
					if (sum[k] > best || (sum[k] === best && label[p] === NONE)) { best = sum[k]; label[p] = k; }
				}
				for (let t = p * T; t < (p + 1) * T; t++) if (target[which[t]] >= 0) sum[target[which[t]]] = 0;
			}
			return { which, share, label, target, T };
		});
		this.rowsOf = null;
	}
	share(i, p, k) { // how much of patch p belongs to prototype k; disabled ones pass theirs on
		const { which, share, target, T } = this.soft[i];
		let mine = 0, lost = 0;
		for (let t = p * T; t < (p + 1) * T; t++) {
			if (target[which[t]] < 0) lost += share[t];
			else if (target[which[t]] === k) mine += share[t];
		}
		return mine && Math.min(1, mine / Math.max(1, 255 - lost));
	}
	readPlaces() { this.places = this.model.get('xy').map(u16); this.placed = []; }
	readSelection() {
		this.selected = u32(this.model.get('selection'));
		this.mask = new Uint8Array(this.P);
		for (const p of this.selected) this.mask[p] = 1;
	}
	like(i) { // likeness to the boxed patch, kept until another one is boxed
		const p = this.patch, key = `${i}/${p}`;
		if (p < 0) return null;
		this.codes[i] ||= new Codes(this.model.get('codes')[i], this.meta.models[i].steps, this.P);
		this.liked ||= [];
		if (this.liked[i]?.key !== key) this.liked[i] = { key, values: this.codes[i].like(p) };
		return this.liked[i].values;
	}
	hue(i, k) { return i ? this.meta.match[k] : k; } // prototypes that are matched share colour and shape
	focus(i) { // the prototype in focus, as model i knows it
		const k = this.prototype, from = this.which, match = this.meta.match;
		if (k < 0 || i === from || !match) return k;
		return i === 0 ? match[k] : match.indexOf(k);
	}
	parts() { return this.partsOf ||= u8(this.model.get('parts')); }
	part(p) { return this.meta.parts ? this.meta.parts[this.parts()[p]] : ''; }
	matched(p) { // the second model's strongest prototype in the first one's numbers
		const l = this.soft[1].label[p];
		return l === NONE ? NONE : this.meta.match[l];
	}
	agrees(p) { return this.matched(p) === this.soft[0].label[p]; }

	// What a user does

	set(values) {
		for (const [name, value] of Object.entries(values)) this.model.set(name, value);
		this.model.save_changes();
	}
	select(patches, how = 'new') { // how: new, add or drop
		let chosen = patches;
		if (how !== 'new') {
			const mask = this.mask.slice();
			for (const p of patches) mask[p] = how === 'add' ? 1 : 0;
			chosen = [];
			for (let p = 0; p < this.P; p++) if (mask[p]) chosen.push(p);
		}
		const sorted = new Uint32Array(chosen).sort();
		this.set({ selection: new DataView(sorted.buffer) });
	}
	mine(i, k) { // the patches that prefer a prototype
		const { label } = this.soft[i], found = [];
		for (let p = 0; p < this.P; p++) if (label[p] === k) found.push(p);
		return found;
	}
	choose(k) { // a prototype, with all patches that prefer it
		const i = this.which, mine = this.mine(i, k);
		const near = this.stats[i][k]?.near?.[0]?.[0] ?? mine[0] ?? -1;
		this.set({ prototype: k, ...(near >= 0 && { patch: near, image: this.at(near) }) });
		this.select(mine);
	}
	pick(p, event = {}) { // one patch was clicked
		if (p < 0) return this.select([]);
		if (event.shiftKey || event.altKey) return this.select([p], this.mask[p] ? 'drop' : 'add');
		const k = this.soft[this.which].label[p];
		this.set({ patch: p, image: this.at(p), prototype: k === NONE ? -1 : k });
		if (!this.likeness) this.select([p]);
	}
	edit(change) {
		const banks = structuredClone(this.banks), before = structuredClone(banks);
		change(banks[this.bank]);
		this.set({ past: [...this.past, before].slice(-50), banks });
	}
	rename(k, name) { if (name.trim() && name.trim() !== this.names()[k]) this.edit(b => { b.names[k] = name.trim().slice(0, 80); }); }
	toggle(k) {
		const { enabled } = this.state(this.which);
		if (enabled[k] && enabled.filter(Boolean).length === 1) return this.tell('One prototype must stay enabled.');
		this.edit(b => { b.enabled[k] = !b.enabled[k]; b.merged[k] = k; });
	}
	merge(into, other) {
		this.edit(b => { b.merged = b.merged.map(k => (k === other ? into : k)); b.enabled[other] = false; });
		this.choose(into);
	}
	undo() {
		const past = this.past;
		if (past.length) this.set({ banks: past.at(-1), past: past.slice(0, -1) });
	}
	step(by) { this.set({ image: (this.image + by + this.M) % this.M }); }

	// The page

	build() {
		const { meta, model } = this, two = meta.models.length > 1;
		const colours = [['prototype', 'prototype'], ['class', 'class']];
		if (meta.parts) colours.splice(1, 0, ['part', 'true part']);
		if (two) colours.push(['agreement', 'agreement']);
		this.colour = el('select', { onchange: e => this.set({ colour_by: e.target.value }) }, ...colours.map(([value, text]) => el('option', { value }, text)));
		this.tools = segmented('Drag selects', [['lasso', 'Lasso', 'Draw around patches'], ['box', 'Box', 'Draw a box']], 'lasso',
			tool => { this.tool = tool; this.tools.show(tool); });
		this.back = button('Undo', 'Take the last rename, merge or switch back (Ctrl+Z)', () => this.undo());
		const kernel = !meta.kernel ? [] : [
			button('UMAP', 'Lay the map out by UMAP; takes a minute or two, all else goes on', () => model.send({ do: 'umap' })),
		];
		const save = [
			['CSV', 'The selected patches as a table', () => this.saveTable('csv')],
			['JSON', 'The selected patches, names and switches', () => this.saveTable('json')],
			['PNG', 'What is shown, as a picture', () => this.savePicture()],
		];
		if (meta.kernel) save.push(['HTML', 'One file that opens anywhere, offline', () => model.send({ do: 'html' })],
			['Bank', 'Save the prototypes with their names and switches', () => model.send({ do: 'bank' })]);
		const bar = el('div.prk-bar', {},
			el('label', {}, 'Colour ', this.colour), el('span.prk-set', {}, 'Drag ', this.tools.node),
			el('span.prk-set', {}, button('−', 'Zoom out (-)', () => this.zoomBy(1 / 1.5)), button('+', 'Zoom in (+)', () => this.zoomBy(1.5)),
				button('Fit', 'The whole map (0)', () => this.zoomBy(0)), ...kernel),
			el('span.prk-space', {}), this.back,
			el('span.prk-set', {}, 'Save ', el('span.prk-segments', {}, ...save.map(args => button(...args)))));

		this.maps = meta.models.map((m, i) => this.pane(`Map of the patches, ${m.name}. Plus and minus zoom.`, 12, () => this.points(i)));
		this.mapNote = el('figcaption');
		this.legend = el('div.prk-legend', {});
		this.images = meta.models.map(m => this.pane(`Image, ${m.name}. Page keys change it.`, 99, c => {
			const a = c.width / this.w, b = c.height / this.h;
			return { n: this.N, x: n => (n % this.w + .5) * a, y: n => (Math.floor(n / this.w) + .5) * b, patch: n => this.image * this.N + n };
		}));
		this.imageNote = el('figcaption');
		this.heatKind = segmented('Heat-map of', [['prototype', 'Prototype', 'How much each patch belongs to the prototype'], ['likeness', 'Like this patch', 'Click a patch: what looks like it, in all images']], '',
			show => this.set({ show }));
		this.smoothing = segmented('Heat-map drawn', [[false, 'Raw', 'One colour a patch, as the model sees it'], [true, 'Smoothed', 'Interpolated between patches: pretty, but finer than what is known']], false,
			smooth => this.set({ smooth }));
		this.slider = el('input', { type: 'range', min: 0, max: 1, step: .05, title: 'Opacity of the heat-map', oninput: e => this.set({ opacity: +e.target.value }) });
		this.slider.setAttribute('aria-label', 'Opacity of the heat-map');
		const [scale, scaleName] = colourBar('assignment');
		this.scaleName = scaleName;
		this.near = el('div.prk-near', { role: 'group', 'aria-label': 'Nearest patches' });
		this.nearNote = el('figcaption');
		this.gridTitle = el('h3');
		this.grid = this.pane('Patches.', 60, () => ({ n: this.cells.length, x: i => this.cells[i].x + this.cells[i].side / 2, y: i => this.cells[i].y + this.cells[i].side / 2, patch: i => this.cells[i].patch }));
		this.pager = [button('‹', 'Earlier', () => { this.page--; this.redraw(); }), el('span.prk-soft', {}), button('›', 'Later', () => { this.page++; this.redraw(); })];
		this.nameField = el('input', { maxLength: 80, placeholder: 'no prototype', onchange: e => this.rename(this.prototype, e.target.value) });
		this.nameField.setAttribute('aria-label', 'Name of the prototype');
		this.switchButton = button('Disable', 'Leave it out of assignment and augmentation', () => this.toggle(this.prototype));
		this.mergeWith = el('select', { title: 'Merge another prototype into this one', onchange: e => { const other = +e.target.value; e.target.value = ''; this.merge(this.prototype, other); } });
		this.mergeWith.setAttribute('aria-label', 'Merge another prototype into this one');
		this.whose = segmented('Prototypes of', meta.models.map((m, i) => [i, m.name]), 0, i => this.set({ model: i, prototype: this.focus(i) }));
		this.body = el('tbody');
		this.headings = [['name', 'prototype'], ['size', 'patches'], ...(meta.parts ? [['purity', 'part']] : []), ['entropy', 'entropy'], ['best', 'best'], ['other', 'nearest']]
			.map(([key, text]) => {
				const about = { size: 'Patches that prefer it', purity: 'Its commonest part, and the share of its patches there', entropy: '0: its patches are sure, 1: undecided', best: 'Its nearest patch', other: 'The most similar prototype, with the cosine' }[key];
				const th = el('th', { scope: 'col' }, button(text, about || text, () => { this.sort = [key, this.sort[0] === key ? -this.sort[1] : key === 'size' || key === 'purity' ? -1 : 1]; this.rowsOf = null; this.redraw(); }));
				if (key === 'size' || key === 'entropy') th.className = 'prk-number';
				return [key, th];
			});
		this.scroll = el('div.prk-scroll', {}, el('table', { 'aria-label': 'Prototypes' }, el('thead', {}, el('tr', {}, ...this.headings.map(([, th]) => th))), this.body));
		this.live = el('span', { role: 'status', 'aria-live': 'polite' });
		this.said = el('span.prk-soft', { role: 'status', 'aria-live': 'polite' }, this.status);
		this.cardPicture = el('canvas', { width: 184, height: 184 });
		this.cardText = el('div');
		this.card = el('div.prk-card', { hidden: true }, this.cardPicture, this.cardText);
		const help = el('details', {}, el('summary', {}, 'Keys'), 'Tab goes from pane to pane. In a pane: arrows move, Enter picks, Space adds or drops, Shift with a drag adds, Alt drops, Escape clears. ',
			'Map: + − 0 zoom. Image: Page Up, Page Down. Table: ↑ ↓ move, Enter picks, d switches off or on. Ctrl+Z takes an edit back.');
		const images = el('div.prk-twins', {}, ...meta.models.map((m, i) => el('figure', {}, two ? el('figcaption', {}, m.name) : null, this.images[i].node)));
		this.root = el('div', { className: `prk prk-explorer${two ? ' prk-two' : ''}`, role: 'region', 'aria-label': 'Prototype explorer', onkeydown: e => this.key(e) }, bar,
			el('div.prk-panes', {},
				el('div.prk-column', {},
				el('section.prk-map', {}, el('div.prk-head', {}, el('h3', {}, 'Map')), el('div.prk-twins', {}, ...meta.models.map((m, i) => el('figure', {}, two ? el('figcaption', {}, m.name) : null, this.maps[i].node))), this.mapNote, this.legend),
				el('section.prk-patches', {}, el('div.prk-head', {}, this.gridTitle, el('span.prk-set', {}, ...this.pager)), this.grid.node)),
				el('div.prk-column', {},
				el('section.prk-image', {}, el('div.prk-head', {}, this.heatKind.node, this.smoothing.node, el('label', {}, 'Heat ', this.slider), el('span.prk-set', {}, button('‹', 'Previous image (Page Up)', () => this.step(-1)), button('›', 'Next image (Page Down)', () => this.step(1)))), images,
					el('div.prk-head', {}, this.imageNote, scale), this.nearNote, this.near),
				el('section.prk-table', {}, el('div.prk-edit', {}, two ? this.whose.node : null, this.nameField, this.switchButton, this.mergeWith), this.scroll))),
			el('div.prk-status', {}, this.live, el('span.prk-space', {}), this.said, meta.note ? el('strong', {}, meta.note) : null, help), this.card);
		this.root.setAttribute('data-lm-suppress-shortcuts', 'true');
		this.cells = [];
		this.host.append(this.root);
	}

	pane(label, reach, centres) { // a canvas on which one hovers, clicks, drags and moves by key
		const c = new Canvas(`${label} Arrows move, Enter picks, Space adds.`), hit = (x, y) => {
			const { n, x: X, y: Y, patch } = centres(c);
			let best = -1, least = reach ** 2;
			for (let i = 0; i < n; i++) {
				const d = (X(i) - x) ** 2 + (Y(i) - y) ** 2;
				if (d < least) { least = d; best = i; }
			}
			return best < 0 ? -1 : patch(best);
		}, move = (dx, dy) => { // to the nearest centre in a direction
			const { n, x: X, y: Y, patch } = centres(c), from = this.hover >= 0 ? this.hover : this.patch;
			let at = 0, best = -1, least = Infinity;
			for (let i = 0; i < n; i++) if (patch(i) === from) { at = i; break; }
			for (let i = 0; i < n; i++) {
				const a = X(i) - X(at), b = Y(i) - Y(at), ahead = a * dx + b * dy, far = ahead + 3 * Math.abs(a * dy + b * dx);
				if (ahead > 2 && far < least) { least = far; best = i; }
			}
			if (best < 0) best = at;
			const r = c.over.getBoundingClientRect();
			this.where = [r.left + X(best), r.top + Y(best)];
			this.point(patch(best));
		};
		let path = null;
		const at = e => { const r = c.over.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
		const end = e => {
			const drawn = path;
			path = null;
			if (!drawn) return;
			const [x, y] = at(e), how = e.shiftKey ? 'add' : e.altKey ? 'drop' : 'new';
			if (drawn.every(([a, b]) => Math.hypot(a - drawn[0][0], b - drawn[0][1]) < 4)) this.pick(hit(x, y), e);
			else this.select(within(drawn, this.tool, centres(c)), how);
			this.mark();
		};
		c.over.addEventListener('pointerdown', e => { if (e.button === 0) { path = [at(e)]; c.over.setPointerCapture(e.pointerId); } });
		c.over.addEventListener('pointermove', e => {
			const [x, y] = at(e);
			if (path) { path.push([x, y]); this.point(-1); this.mark(c, path); } else this.point(hit(x, y), e);
		});
		c.over.addEventListener('pointerup', end);
		c.over.addEventListener('pointercancel', () => { path = null; this.mark(); });
		c.over.addEventListener('pointerleave', () => { if (!path) this.point(-1); });
		c.over.addEventListener('blur', () => this.point(-1));
		c.over.addEventListener('keydown', e => {
			const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
			if (step) {
				move(...step);
				if (e.shiftKey && this.hover >= 0) this.select([this.hover], 'add');
			} else if (e.key === 'Enter') this.pick(this.hover >= 0 ? this.hover : this.patch);
			else if (e.key === ' ' && this.hover >= 0) this.pick(this.hover, { shiftKey: true });
			else return;
			e.preventDefault();
		});
		return c;
	}
	key(e) {
		e.stopPropagation();
		if (e.target.tagName === 'INPUT' || e.target.tagName === 'SELECT') return;
		const act = {
			Escape: () => this.select([]), '+': () => this.zoomBy(1.5), '-': () => this.zoomBy(1 / 1.5), 0: () => this.zoomBy(0),
			PageUp: () => this.step(-1), PageDown: () => this.step(1),
		}[e.key] || ((e.ctrlKey || e.metaKey) && e.key === 'z' && (() => this.undo()));
		if (act) { act(); e.preventDefault(); }
	}
	rowKey(e, k) {
		const row = e.currentTarget, to = { ArrowDown: row.nextSibling, ArrowUp: row.previousSibling, Home: this.body.firstChild, End: this.body.lastChild }[e.key];
		if (to) to.focus();
		else if (e.key === 'Enter' || e.key === ' ') this.choose(k);
		else if (e.key === 'd') this.toggle(k);
		else return;
		e.preventDefault();
	}

	// Hovering: the ring at once, the card a little later

	point(p, e) {
		if (p !== this.hover) {
			this.hover = p;
			this.mark();
			clearTimeout(this.waiting);
			this.card.hidden = true;
			if (p >= 0) this.waiting = setTimeout(() => this.showCard(p), HOVER_MS);
		}
		if (e) this.where = [e.clientX, e.clientY];
	}
	showCard(p) {
		const ctx = this.cardPicture.getContext('2d'), m = this.at(p), n = p % this.N, lines = [];
		this.sheet.patch(ctx, p, 0, 0, 184, 2);
		this.meta.models.forEach((model, i) => {
			const k = this.soft[i].label[p];
			lines.push(`${this.meta.models.length > 1 ? `${model.name}: ` : ''}${k === NONE ? 'none left' : `${this.names(i)[k]} ${this.share(i, p, k).toFixed(2)}`}`);
		});
		if (this.meta.parts) lines.push(`true part: ${this.part(p)}`);
		lines.push(`${this.className(m)}image ${this.meta.ids[m]}`, `row ${Math.floor(n / this.w)}, column ${n % this.w}`);
		this.cardText.replaceChildren(...lines.map((line, i) => el(i ? 'div' : 'strong', {}, line)));
		const r = this.root.getBoundingClientRect(), [x, y] = this.where || [r.left, r.top];
		this.card.hidden = false;
		const { offsetWidth: wide, offsetHeight: high } = this.card;
		this.card.style.left = `${Math.max(4, x - r.left + 16 + wide > r.width ? x - r.left - wide - 12 : x - r.left + 16)}px`;
		this.card.style.top = `${Math.max(4, Math.min(y - r.top + 14, r.height - high - 4))}px`;
	}
	className(m) { const label = this.meta.labels[m]; return label >= 0 ? `${this.meta.classes[label]}, ` : ''; }
	mark(dragged, path) { // rings, boxes and the line that is being drawn, above the pictures
		const p = this.hover, boxed = this.patch, image = this.image;
		for (const [i, c] of this.maps.entries()) {
			if (!c.width) continue;
			const ctx = c.start(c.over), points = this.points(i);
			for (const [q, r, wide] of [[boxed, 6, 2], [p, 8, 2.5]])
				if (q >= 0 && this.places[i][2 * q] !== NOWHERE) outline(ctx, wide, () => ctx.arc(points.x(q), points.y(q), r, 0, 7));
		}
		for (const c of this.images) {
			if (!c.width) continue;
			const ctx = c.start(c.over), a = c.width / this.w, b = c.height / this.h, cell = n => [n % this.w * a, Math.floor(n / this.w) * b, a, b];
			ctx.fillStyle = '#fff';
			if (!this.likeness) for (let n = 0; n < this.N; n++) if (this.mask[image * this.N + n]) {
				const [x, y] = cell(n);
				ctx.beginPath(); ctx.arc(x + a / 2, y + b / 2, Math.max(1.5, a / 9), 0, 7); ctx.fill();
				Object.assign(ctx, { strokeStyle: '#000', lineWidth: 1 }); ctx.stroke();
			}
			for (const [q, line] of [[boxed, 3], [p, 1.5]]) if (q >= 0 && this.at(q) === image) box(ctx, ...cell(q % this.N), line);
		}
		if (this.grid.width) {
			const ctx = this.grid.start(this.grid.over);
			for (const cell of this.cells) if (cell.patch === p || cell.patch === boxed) box(ctx, cell.x + 1, cell.y + 1, cell.side - 2, cell.side - 2, cell.patch === p ? 3 : 2);
		}
		if (!path) return;
		const ctx = dragged.over.getContext('2d'), [x, y] = path[0], [a, b] = path.at(-1);
		outline(ctx, 1.5, () => {
			if (this.tool === 'box') return ctx.rect(x, y, a - x, b - y);
			path.forEach(([u, v]) => ctx.lineTo(u, v));
			ctx.closePath();
		});
	}

	// The map

	zoomBy(by) { // towards the middle of the selection, else the box; what is not on the map does not count
		this.zoom = by ? Math.min(40, Math.max(1, this.zoom * by)) : 1;
		const over = this.selected.length ? this.selected : [this.patch];
		this.mids = this.places.map((xy, i) => {
			let n = 0, x = 0, y = 0;
			for (const p of over) if (p >= 0 && xy[2 * p] !== NOWHERE) { n++; x += xy[2 * p]; y += xy[2 * p + 1]; }
			return this.zoom === 1 ? [.5, .5] : n ? [x / n / 65534, 1 - y / n / 65534] : this.mids[i];
		});
		this.redraw();
	}
	points(i) { // where each patch is on map i, in CSS pixels
		const c = this.maps[i], xy = this.places[i], mid = this.mids[i], key = [c.width, c.height, this.zoom, ...mid].join();
		if (this.placed[i]?.key !== key) {
			const side = (Math.min(c.width, c.height) - 18) * this.zoom, X = new Float32Array(this.P), Y = new Float32Array(this.P);
			const left = c.width / 2 - mid[0] * side, top = c.height / 2 - mid[1] * side;
			for (let p = 0; p < this.P; p++) {
				X[p] = xy[2 * p] === NOWHERE ? -1e6 : left + xy[2 * p] / 65534 * side;
				Y[p] = top + (1 - xy[2 * p + 1] / 65534) * side;
			}
			this.placed[i] = { key, n: this.P, X, Y, x: p => X[p], y: p => Y[p], patch: p => p };
		}
		return this.placed[i];
	}
	colouring(i) { // for each patch a number for colour and shape, -1 for grey; and the legend
		const by = this.colour_by, { label } = this.soft[i], parts = this.parts(), names = this.names(i), M = this.meta;
		if (by === 'part' && M.parts) return { of: p => parts[p] - 1, texts: M.parts.slice(1) };
		if (by === 'class') return { of: p => M.labels[this.at(p)], texts: M.classes };
		if (by === 'agreement' && this.soft[1]) return { of: p => (this.agrees(p) ? 0 : 1), texts: ['same prototype', 'different ones'] };
		return { of: p => (label[p] === NONE ? -1 : this.hue(i, label[p])), texts: names };
	}
	drawMap(i) {
		const c = this.maps[i];
		if (!c.fit(Math.round(this.meta.models.length > 1 ? Math.min(340, c.node.clientWidth) : Math.min(448, c.node.clientWidth * .84)))) return;
		const ctx = c.base.getContext('2d'), W = c.base.width, H = c.base.height, picture = ctx.createImageData(W, H), out = new Uint32Array(picture.data.buffer);
		const { X, Y } = this.points(i), { of } = this.colouring(i), like = this.likeness ? this.like(i) : null;
		const night = dark(this.root), grey = night ? 0xFF4B443D : 0xFFD9D4CF, some = this.selected.length > 0 || like;
		const shown = Math.max(1, this.P / this.zoom ** 2), size = Math.round(Math.max(1, c.ratio * (shown > 60000 ? 2 : shown > 12000 ? 3 : shown > 4000 ? 4.5 : shown > 900 ? 6 : 8)));
		const stamps = shapesOf(size).map(cells => Int32Array.from(cells, ([a, b]) => b * W + a)), colours = COLOURS.map((hex, n) => (n === 7 && night ? 0xFFFFFFFF : abgr(hex)));
		const put = (p, colour, offsets) => {
			const x = Math.round(X[p] * c.ratio - size / 2), y = Math.round(Y[p] * c.ratio - size / 2);
			if (x < 0 || y < 0 || x + size > W || y + size > H) return;
			for (let n = 0, at = y * W + x; n < offsets.length; n++) out[at + offsets[n]] = colour;
		};
		for (let pass = some ? 0 : 1; pass < 2; pass++)
			for (let p = 0; p < this.P; p++) {
				if (like) {
					const high = like[p] > .4;
					if (high !== (pass === 1)) continue;
					put(p, high ? heatColour(like[p]) : grey, stamps[0]);
					continue;
				}
				if (some && this.mask[p] !== pass) continue;
				const n = of(p);
				if (n < 0 || !pass) put(p, pass && n < 0 ? (night ? 0xFF8A8078 : 0xFF9AA1A8) : grey, stamps[0]);
				else { const [colour, shape] = styleOf(n); put(p, colours[colour], stamps[shape]); }
			}
		ctx.putImageData(picture, 0, 0);
	}

	// The image and its heat-map

	heatOf(i, m) {
		if (this.likeness) return this.like(i)?.subarray(m * this.N, (m + 1) * this.N);
		const k = this.focus(i);
		return k < 0 ? null : Float32Array.from({ length: this.N }, (_, n) => this.share(i, m * this.N + n, k));
	}
	drawImage(i) {
		const c = this.images[i], m = this.image;
		if (!c.fit()) return;
		const ctx = c.start(), values = this.heatOf(i, m);
		ctx.imageSmoothingEnabled = true;
		if (values) ctx.filter = 'grayscale(1)';
		this.sheet.image(ctx, m, 0, 0, c.width);
		ctx.filter = 'none';
		if (values) this.sheet.heat(ctx, values, c.width, this);
	}
	thumb(p, side) {
		const picture = el('canvas', { width: side, height: side });
		this.sheet.patch(picture.getContext('2d'), p, 0, 0, side);
		return picture;
	}
	drawNear() {
		const i = this.which, k = this.prototype, near = k >= 0 ? this.stats[i][k]?.near || [] : [];
		const key = [i, k, JSON.stringify(near)].join();
		this.nearNote.textContent = near.length ? 'Nearest patches, one an image, and their distance (1 − cosine) to the prototype:' : '';
		if (this.nearKey === key) return;
		this.nearKey = key;
		this.near.replaceChildren(...near.map(([p, distance], n) => {
			const m = this.at(p), label = `Nearest ${n + 1}: ${this.className(m)}image ${this.meta.ids[m]}, distance ${distance.toFixed(2)}`;
			const thumb = el('button', { type: 'button', title: label, onclick: () => this.set({ patch: p, image: m }), onpointerenter: e => this.point(p, e), onpointerleave: () => this.point(-1) }, this.thumb(p, 96), distance.toFixed(2));
			thumb.setAttribute('aria-label', label);
			return thumb;
		}));
	}

	// The grid: patches, or whole images with their likeness

	drawGrid() {
		const c = this.grid, tiles = this.likeness && this.patch >= 0;
		if (!c.fit(304)) return;
		const i = this.which, k = this.prototype, side = tiles ? 98 : 56, gap = 4;
		const across = Math.max(1, Math.floor((c.width + gap) / (side + gap))), each = across * Math.floor((304 + gap) / (side + gap));
		const all = tiles ? this.mostAlike(i) : this.strongest(i, k), pages = Math.max(1, Math.ceil(all.length / each));
		this.page = Math.min(Math.max(0, this.page), pages - 1);
		const ctx = c.start(), { smooth, opacity } = this;
		this.cells = all.slice(this.page * each, (this.page + 1) * each).map((p, n) => {
			const x = n % across * (side + gap), y = Math.floor(n / across) * (side + gap), m = this.at(p);
			if (tiles) {
				ctx.filter = 'grayscale(1)';
				this.sheet.image(ctx, m, x, y, side);
				ctx.filter = 'none';
				this.sheet.heat(ctx, this.heatOf(i, m), side, { smooth, opacity, x, y });
				const n2 = p % this.N;
				box(ctx, x + n2 % this.w * side / this.w, y + Math.floor(n2 / this.w) * side / this.h, side / this.w, side / this.h, 1);
			} else this.sheet.patch(ctx, p, x, y, side);
			return { patch: p, x, y, side };
		});
		const what = this.selected.length ? 'selected patches' : k >= 0 ? `patches of ${this.names()[k]}` : 'patches from all over';
		this.gridTitle.textContent = tiles ? 'All images, most alike first' : `${count(all.length)} ${what}${k >= 0 ? ', strongest first' : ''}`;
		this.pager[0].disabled = this.page === 0;
		this.pager[2].disabled = this.page === pages - 1;
		this.pager[1].textContent = `${this.page + 1} / ${pages}`;
	}
	strongest(i, k) {
		const { P } = this;
		let all = this.selected;
		if (!all.length) all = k < 0 ? [...new Set(Array.from({ length: Math.min(P, 200) }, (_, n) => Math.floor(n * .618034 % 1 * P)))] : this.mine(i, k);
		// share and number in one number, since numbers are sorted ten times faster than by a function
		return k < 0 ? Array.from(all) : Array.from(Float64Array.from(all, p => Math.round((1 - this.share(i, p, k)) * 1e6) * P + p).sort(), key => key % P);
	}
	mostAlike(i) { // the best patch of each image, best image first
		const like = this.like(i), best = Array.from({ length: this.M }, (_, m) => {
			let top = m * this.N;
			for (let p = top; p < (m + 1) * this.N; p++) if (like[p] > like[top]) top = p;
			return top;
		});
		return best.sort((a, b) => like[b] - like[a]);
	}
	// The table

	table(i) { // numbers of each prototype, in the order asked for
		const { label } = this.soft[i], { names, enabled, merged } = this.state(i), stats = this.stats[i], K = names.length;
		const size = new Uint32Array(K), parts = this.parts(), L = this.meta.parts?.length || 0, table = new Uint32Array(K * L);
		for (let p = 0; p < this.P; p++) if (label[p] !== NONE) { size[label[p]]++; if (L) table[label[p] * L + parts[p]]++; }
		const rows = names.map((name, k) => {
			const mine = table.subarray(k * L, (k + 1) * L), front = mine.reduce((a, b) => a + b, 0) - (mine[0] || 0);
			let part = 0;
			if (4 * front > size[k]) for (let l = 1; l < L; l++) if (part === 0 || mine[l] > mine[part]) part = l;
			const { entropy, near, other, alike } = stats[k] || {}, marks = [];
			if (merged[k] !== k) marks.push(`in ${names[merged[k]]}`);
			else if (!enabled[k]) marks.push('off');
			else if (!size[k]) marks.push('dead');
			if (enabled[k] && alike > .95) marks.push(`twin of ${names[other]}`);
			return { k, name, size: size[k], part, purity: size[k] && L ? mine[part] / size[k] : -1, entropy, best: near?.[0]?.[0] ?? -1, other, alike, marks, off: !enabled[k] };
		});
		const [key, way] = this.sort, value = row => (key === 'purity' ? (row.part && 9 - row.part / L) + row.purity / L : key === 'other' ? row.alike : row[key] ?? 2);
		return rows.sort((a, b) => a.off - b.off || way * (key === 'name' ? a.name.localeCompare(b.name, 'en', { numeric: true }) : value(a) - value(b)) || a.k - b.k);
	}
	drawTable() {
		const i = this.which, k = this.prototype;
		if (this.rowsOf !== i) {
			this.rowsOf = i;
			const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.k : null, cell = (text, className = '') => el('td', { className, title: text }, text);
			this.body.replaceChildren(...this.table(i).map(row => {
				const thumb = row.best < 0 ? '' : this.thumbs[row.k + '/' + row.best] ||= this.thumb(row.best, 48);
				const tr = el('tr', { tabIndex: -1, className: row.off ? 'prk-off' : '', onclick: () => this.choose(row.k), onkeydown: e => this.rowKey(e, row.k) },
					el('td', { title: [row.name, ...row.marks].join(', ') }, el('div', {}, symbol(this.hue(i, row.k)), el('span.prk-name', {}, row.name), ...row.marks.map(mark => el('span.prk-mark', {}, mark)))), cell(count(row.size), 'prk-number'),
					...(this.meta.parts ? [cell(row.size ? `${this.meta.parts[row.part]} ${percent(row.purity)}` : '–')] : []),
					cell(row.entropy == null ? '–' : row.entropy.toFixed(2), 'prk-number'), el('td', {}, thumb),
					row.other < 0 ? cell('–') : el('td', { title: this.names(i)[row.other] }, el('div', {}, el('span.prk-name', {}, this.names(i)[row.other]), row.alike.toFixed(2))));
				tr.dataset.k = row.k;
				return tr;
			}));
			for (const [key, th] of this.headings) th.setAttribute('aria-sort', key !== this.sort[0] ? 'none' : this.sort[1] > 0 ? 'ascending' : 'descending');
			const names = this.names(i), { enabled } = this.state(i), live = names.map((name, n) => [n, name]).filter(([n]) => enabled[n] && n !== k);
			this.mergeWith.replaceChildren(el('option', { value: '' }, 'Merge with…'), ...live.map(([n, name]) => el('option', { value: n }, name)));
			this.mergeFor = k;
			if (focused) this.body.querySelector(`[data-k="${focused}"]`)?.focus();
		}
		let first = this.body.firstChild;
		for (const tr of this.body.children) {
			const mine = +tr.dataset.k === k;
			if (mine) first = tr;
			tr.setAttribute('aria-selected', mine);
			tr.tabIndex = -1;
		}
		if (first) first.tabIndex = 0;
		if (first && this.last !== k && !this.body.contains(document.activeElement)) this.scroll.scrollTop = Math.max(0, first.offsetTop - 120);
		this.last = k;
		for (const option of this.mergeWith.options) option.hidden = option.value !== '' && +option.value === k;
		const on = k >= 0 && this.state(i).enabled[k];
		this.nameField.disabled = this.switchButton.disabled = k < 0;
		this.mergeWith.disabled = !on;
		if (document.activeElement !== this.nameField) this.nameField.value = k >= 0 ? this.names(i)[k] : '';
		this.switchButton.textContent = k >= 0 && !on ? 'Enable' : 'Disable';
		this.back.disabled = !this.past.length;
		this.whose.show(i);
	}

	// All of it

	draw() {
		const { model, prototype: k, image: m, patch: p, likeness, smooth } = this;
		if (!this.root.clientWidth) return;
		this.root.classList.toggle('prk-dark', dark(this.root));
		this.colour.value = this.colour_by;
		this.slider.value = this.opacity;
		this.heatKind.show(model.get('show'));
		this.smoothing.show(smooth);
		this.scaleName.textContent = likeness ? 'cosine' : 'assignment';
		this.maps.forEach((_, i) => this.drawMap(i));
		this.images.forEach((_, i) => this.drawImage(i));
		this.drawNear();
		this.drawGrid();
		this.drawTable();
		this.note();
		const kind = smooth ? 'smoothed' : `raw, ${this.h} × ${this.w} patches`;
		const of = likeness ? (p < 0 ? 'click a patch to see what is like it' : `likeness to the box, ${kind}`) : k < 0 ? 'click a patch, a point or a row' : `${this.names()[k]}, ${kind}`;
		this.imageNote.textContent = `${this.className(m)}image ${this.meta.ids[m]}: ${of}`;
		this.drawLegend();
		this.mark();
		this.count();
	}
	note() {
		const told = this.likeness ? '; colour is likeness to the box' : this.meta.match && this.colour_by === 'prototype' ? '; matched prototypes share a colour' : '';
		this.mapNote.textContent = `${this.map_note}. Near means alike${told}.`;
	}
	drawLegend() {
		const { of, texts } = this.colouring(0), tally = new Uint32Array(texts.length), over = this.selected.length ? this.selected : null;
		if (over) for (const p of over) { if (of(p) >= 0) tally[of(p)]++; } else for (let p = 0; p < this.P; p++) if (of(p) >= 0) tally[of(p)]++;
		const order = [...tally.keys()].filter(n => tally[n]).sort((a, b) => tally[b] - tally[a]).slice(0, 12);
		this.legend.replaceChildren(...(this.likeness ? [] : order).map(n => el('span', { title: `${texts[n]}: ${count(tally[n])} patches` }, symbol(n, 10), el('span.prk-name', {}, texts[n]))));
	}
	count() {
		const { selected, P, M, meta } = this, n = selected.length, seen = new Uint8Array(M), tally = new Uint32Array(256), parts = this.parts(), said = [];
		let same = 0;
		for (const p of selected) { seen[this.at(p)] = 1; tally[parts[p]]++; }
		const images = seen.reduce((a, b) => a + b, 0), most = tally.indexOf(Math.max(...tally));
		said.push(n ? `${count(n)} of ${count(P)} patches selected, in ${count(images)} ${images === 1 ? 'image' : 'images'}` : `${count(P)} patches of ${count(M)} images, none selected`);
		if (n && meta.parts) said.push(`${percent(tally[most] / n)} ${meta.parts[most]}`);
		if (this.soft[1]) {
			if (n) for (const p of selected) same += this.agrees(p); else for (let p = 0; p < P; p++) same += this.agrees(p);
			said.push(`${meta.models.map(m => m.name).join(' and ')} agree on ${count(same)} (${percent(same / (n || P))})`);
		}
		const text = said.join(' · ');
		if (this.live.textContent !== text) this.live.textContent = text;
	}
	tell(text) { this.said.textContent = text; }

	// Taking along

	rows() {
		return Array.from(this.selected.length ? this.selected : { length: this.P }, (p, n) => {
			p ??= n;
			const m = this.at(p), row = { patch: p, image: this.meta.folder + this.meta.ids[m], row: Math.floor(p % this.N / this.w), column: p % this.w };
			this.meta.models.forEach((model, i) => {
				const k = this.soft[i].label[p], tail = i ? `_${model.name}` : '';
				Object.assign(row, { [`prototype${tail}`]: k === NONE ? null : k, [`name${tail}`]: k === NONE ? '' : this.names(i)[k], [`assignment${tail}`]: k === NONE ? null : +this.share(i, p, k).toFixed(3) });
			});
			if (this.meta.parts) row.part = this.part(p);
			return { ...row, class: this.meta.classes[this.meta.labels[m]] ?? '', seed: this.meta.seed, data: this.meta.data };
		});
	}
	saveTable(kind) {
		const rows = this.rows(), keys = Object.keys(rows[0]), { seed, data } = this.meta;
		const quote = value => (/[",\n]/.test(value ?? '') ? `"${String(value).replaceAll('"', '""')}"` : value ?? '');
		const text = kind === 'json' ? JSON.stringify({ seed, data, banks: this.banks, patches: rows }, null, 1)
			: [keys, ...rows.map(row => keys.map(key => row[key]))].map(line => line.map(quote).join(',')).join('\r\n');
		this.download(`patches.${kind}`, new Blob([text], { type: kind === 'json' ? 'application/json' : 'text/csv' }));
	}
	savePicture() {
		const shots = [...this.maps, ...this.images, this.grid], ratio = this.maps[0].ratio, pad = 12, night = getComputedStyle(this.root);
		const high = Math.max(...shots.map(c => c.height)) + 2 * pad + 44, wide = shots.reduce((sum, c) => sum + c.width + pad, pad);
		const sheet = el('canvas', { width: wide * ratio, height: high * ratio }), ctx = sheet.getContext('2d');
		ctx.scale(ratio, ratio);
		ctx.fillStyle = night.backgroundColor;
		ctx.fillRect(0, 0, wide, high);
		let x = pad;
		for (const c of shots) {
			for (const layer of [c.base, c.over]) ctx.drawImage(layer, x, pad, c.width, c.height);
			x += c.width + pad;
		}
		Object.assign(ctx, { fillStyle: night.color, font: '13px system-ui, sans-serif' });
		ctx.fillText(`${this.imageNote.textContent} · ${this.gridTitle.textContent}`, pad, high - 34);
		ctx.fillText(`${this.live.textContent} · ${this.map_note} · seed ${this.meta.seed}, data ${this.meta.data}`, pad, high - 14);
		sheet.toBlob(blob => this.download('explorer.png', blob));
	}
	download(name, blob) {
		const link = el('a', { href: URL.createObjectURL(blob), download: name });
		link.click();
		setTimeout(() => URL.revokeObjectURL(link.href), 10000);
		this.tell(`Saved ${name} to your downloads.`);
	}
	destroy() { this.ends.forEach(end => end()); clearTimeout(this.waiting); this.root.remove(); }
}

for (const name of ['prototype', 'patch', 'image', 'banks', 'past', 'stats', 'smooth', 'opacity', 'colour_by', 'map_note', 'status'])
	Object.defineProperty(Explorer.prototype, name, { get() { return this.model.get(name); } });

const abgr = hex => { const n = parseInt(hex.slice(1), 16); return (0xFF000000 | (n & 255) << 16 | n & 0xFF00 | n >> 16) >>> 0; };
const heatColour = v => { const i = 4 * Math.round(255 * Math.min(1, v)); return (0xFF000000 | HEAT[i + 2] << 16 | HEAT[i + 1] << 8 | HEAT[i]) >>> 0; };
const stampCache = {};
function shapesOf(size) { // the pixels of each shape at a size; the smallest are squares
	return stampCache[size] ||= SHAPES.map(path => {
		const found = [], all = [];
		const ctx = new OffscreenCanvas(size, size).getContext('2d');
		ctx.setTransform(size / 10, 0, 0, size / 10, size / 2, size / 2);
		ctx.fill(new Path2D(path));
		const { data } = ctx.getImageData(0, 0, size, size);
		for (let i = 0; i < size * size; i++) { all.push([i % size, Math.floor(i / size)]); if (data[4 * i + 3] > 110) found.push(all.at(-1)); }
		return size < 4 ? all : found;
	});
}
function within(path, tool, { n, x, y, patch }) { // the patches whose centre is inside the line that was drawn
	let line = path;
	if (tool === 'box') { const [a, b] = path[0], [c, d] = path.at(-1); line = [[a, b], [c, b], [c, d], [a, d]]; }
	else if (line.length > 160) line = line.filter((_, i) => i % Math.ceil(path.length / 160) === 0);
	const xs = line.map(([a]) => a), ys = line.map(([, b]) => b), found = [];
	const [left, right, top, low] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
	for (let i = 0; i < n; i++) {
		const a = x(i), b = y(i);
		if (a < left || a > right || b < top || b > low) continue;
		let inside = false;
		for (let s = 0, t = xs.length - 1; s < xs.length; t = s++)
			if ((ys[s] > b) !== (ys[t] > b) && a < (xs[t] - xs[s]) * (b - ys[s]) / (ys[t] - ys[s]) + xs[s]) inside = !inside;
		if (inside) found.push(patch(i));
	}
	return found;
}

async function render({ model, el: host }) {
	const explorer = new Explorer(model, host, await openSheet(model));
	host.prockd = explorer; // for whoever looks with the browser's own tools
	return () => explorer.destroy();
}
export default { render };
