// PrototypeExplorer: one map, one grid, one image and one table that share a selection.
const HOVER_MS = 125;

class Explorer extends ExplorerTable {
	constructor(model, host, sheet) {
		super(model);
		Object.assign(this, {
			host,
			sheet,
			hover: -1,
			tool: 'lasso',
			page: 0,
			thumbs: {},
			zoom: 1,
			pinned: -1,
			search: '',
		});
		this.mids = this.places.map(() => [0.5, 0.5]);
		this.redraw = soon(() => this.draw());
		this.readFilter();
		this.build();
		this.root.addEventListener('dragover', e => e.preventDefault());
		this.root.addEventListener('drop', e => {
			e.preventDefault();
			this.lookAt(e.dataTransfer.files[0]);
		});
		if (this.own) this.readOwnPicture();
		const [notice, unlisten] = kernelNotice(model, (name, blob) => this.download(name, blob));
		this.root.prepend(notice);
		this.ends = [watch(this.root, this.redraw, this.redraw), unlisten];
		const on = (names, f) => {
			const event = names
				.split(' ')
				.map(name => `change:${name}`)
				.join(' ');
			model.on(event, f);
			this.ends.push(() => model.off(event, f));
		};
		on('banks top stats meta', () => {
			this.meta = model.get('meta');
			const whole = this.whole;
			this.readBanks();
			this.readFilter();
			if (whole >= 0 && this.state(this.which).enabled[whole]) this.selectWhole(whole);
			this.redraw();
		});
		on('xy on_map', () => this.fly());
		on('maps', () => this.showMaps());
		on('map_note', () => this.note());
		on('selection', () => {
			this.readSelection();
			Object.assign(this, { page: 0, range: null });
			this.redraw();
		});
		on('prototype patch image model show colour_by smooth opacity', () => {
			Object.assign(this, { page: 0, range: null });
			if (this.filter.pictures === 'this') this.readFilter();
			this.redraw();
		});
		on('own', () => this.readOwnPicture());
		on('status', () => this.tell(this.status));
		this.redraw();
	}

	draw() {
		const { model, smooth } = this;
		if (!this.root.clientWidth) return;
		this.night = dark(this.root);
		this.root.classList.toggle('prk-dark', this.night);
		const css = getComputedStyle(this.root);
		const [line, blue] = ['--prk-line', '--prk-blue'].map(name => css.getPropertyValue(name));
		this.style = { line, blue, ink: css.color }; // asked once: after a change each question lays the page out anew
		this.colour.value = this.colour_by;
		this.projections.show(this.on_map);
		this.slider.value = this.opacity;
		this.heatKind.show(model.get('show'));
		this.smoothing.show(smooth);
		this.noteImage();
		for (const i of this.maps.keys()) this.drawMap(i);
		this.drawImages();
		this.drawNear();
		this.drawBars();
		this.drawGrid();
		this.drawTable();
		this.note();
		this.drawLegend();
		this.mark();
		this.count();
	}

	// rings, boxes and the line that is being drawn, above the pictures
	mark(dragged, path) {
		const p = this.hover;
		const boxed = this.patch;
		const image = this.image;
		for (const [i, c] of this.maps.entries()) {
			if (!c.width) continue;
			const ctx = c.start(c.over);
			const points = this.points(i);
			for (const [q, r, wide] of [
				[boxed, 6, 2],
				[p, 8, 2.5],
			])
				if (q >= 0 && this.places[i][2 * q] !== NOWHERE)
					outline(ctx, wide, () => ctx.arc(points.x(q), points.y(q), r, 0, 7));
		}
		for (const [j, c] of this.images.entries()) {
			if (!c.width || this.figures[j].hidden) continue;
			const ctx = c.start(c.over);
			const a = c.width / this.w;
			const b = c.height / this.h;
			const cell = n => [(n % this.w) * a, Math.floor(n / this.w) * b, a, b];
			ctx.fillStyle = '#fff';
			if (!this.likeness)
				for (let n = 0; n < this.N; n++)
					if (this.mask[image * this.N + n]) {
						const [x, y] = cell(n);
						ctx.beginPath();
						ctx.arc(x + a / 2, y + b / 2, Math.max(1.5, a / 9), 0, 7);
						ctx.fill();
						Object.assign(ctx, { strokeStyle: '#000', lineWidth: 1 });
						ctx.stroke();
					}
			for (const [q, line] of [
				[boxed, 3],
				[p, 1.5],
			])
				if (q >= 0 && this.at(q) === image) box(ctx, ...cell(q % this.N), line);
		}
		if (this.grid.width) {
			const ctx = this.grid.start(this.grid.over);
			for (const cell of this.cells)
				if (cell.patch === p || cell.patch === boxed)
					box(ctx, cell.x + 1, cell.y + 1, cell.side - 2, cell.side - 2, cell.patch === p ? 3 : 2);
		}
		if (!path) return;
		const ctx = dragged.over.getContext('2d');
		const [x, y] = path[0];
		const [a, b] = path.at(-1);
		outline(ctx, 1.5, () => {
			if (this.tool === 'box') {
				ctx.rect(x, y, a - x, b - y);
				return;
			}
			for (const [u, v] of path) ctx.lineTo(u, v);
			ctx.closePath();
		});
	}

	set(values) {
		for (const [name, value] of Object.entries(values)) this.model.set(name, value);
		this.model.save_changes();
	}

	// how: new, add or drop
	select(patches, how = 'new') {
		let numbers = patches;
		if (how !== 'new') {
			const mask = this.mask.slice();
			for (const p of patches) mask[p] = how === 'add' ? 1 : 0;
			numbers = [];
			for (let p = 0; p < this.P; p++) if (mask[p]) numbers.push(p);
		}
		const { kept } = this;
		const sorted = new Uint32Array(numbers).filter(p => kept[p]);
		if (sorted.some((p, at) => p < sorted[at - 1])) sorted.sort();
		this.whole = -1;
		this.set({ selection: new DataView(sorted.buffer) });
	}

	// a prototype, with all patches that prefer it
	choose(k) {
		const i = this.which;
		const mine = this.mine(i, k);
		const near = this.stats[i][k]?.near?.[0]?.[0] ?? mine[0] ?? -1;
		this.set({ prototype: k, ...(near >= 0 && { patch: near, image: this.at(near) }) });
		this.selectWhole(k);
	}

	// all patches of a prototype, and those that it gets or loses by an edit
	selectWhole(k) {
		this.select(this.mine(this.which, k));
		this.whole = k;
	}

	// one patch was clicked
	pick(p, event = {}) {
		if (p < 0) return this.select([]);
		if (!this.shown[p]) return;
		if (event.shiftKey || event.altKey) return this.select([p], this.mask[p] ? 'drop' : 'add');
		const k = this.soft[this.which].label[p];
		this.set({ patch: p, image: this.at(p), prototype: k === NONE ? -1 : k });
		if (!this.likeness) this.select([p]);
	}

	step(by) {
		this.set({ image: (this.image + by + this.M) % this.M });
	}

	key(e) {
		e.stopPropagation();
		if ((e.target.tagName === 'INPUT' && e.target.type !== 'checkbox') || e.target.tagName === 'SELECT') return;
		const act =
			{
				Escape: () => this.select([]),
				'+': () => this.zoomBy(1.5),
				'-': () => this.zoomBy(1 / 1.5),
				0: () => this.zoomBy(0),
				PageUp: () => this.step(-1),
				PageDown: () => this.step(1),
			}[e.key] ||
			((e.ctrlKey || e.metaKey) &&
				{ z: () => (e.shiftKey ? this.redo() : this.undo()), y: () => this.redo() }[e.key.toLowerCase()]);
		if (act) {
			act();
			e.preventDefault();
		}
	}

	point(at, e) {
		const p = this.shown[at] ? at : -1;
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
		const ctx = this.cardPicture.getContext('2d');
		const m = this.at(p);
		const n = p % this.N;
		const lines = [];
		this.sheet.patch(ctx, p, 0, 0, 184, 2);
		this.meta.models.forEach((model, i) => {
			const k = this.soft[i].label[p];
			lines.push(
				`${this.meta.models.length > 1 ? `${model.name}: ` : ''}${k === NONE ? 'none left' : `${this.names(i)[k]} ${this.share(i, p, k).toFixed(2)}`}`,
			);
		});
		if (this.part(p)) lines.push(`true part: ${this.part(p)}`);
		const answer = this.meta.answers?.[m];
		if (answer >= 0) lines.push(`answer: ${this.meta.classes[answer]}`);
		lines.push(`${this.className(m)}${this.idOf(m)}`, `row ${Math.floor(n / this.w)}, column ${n % this.w}`);
		this.cardText.replaceChildren(...lines.map((line, i) => el(i ? 'div' : 'strong', {}, line)));
		const r = this.root.getBoundingClientRect();
		const [x, y] = this.where || [r.left, r.top];
		this.card.hidden = false;
		const { offsetWidth: wide, offsetHeight: high } = this.card;
		this.card.style.left = `${Math.max(4, x - r.left + 16 + wide > r.width ? x - r.left - wide - 12 : x - r.left + 16)}px`;
		this.card.style.top = `${Math.max(4, Math.min(y - r.top + 14, r.height - high - 4))}px`;
	}

	saveTable(kind) {
		const rows = this.rows();
		const { seed, data } = this.meta;
		const text =
			kind === 'json' ? JSON.stringify({ seed, data, banks: this.banks, patches: rows }, null, 1) : csvOf(rows);
		this.download(`patches.${kind}`, new Blob([text], { type: kind === 'json' ? 'application/json' : 'text/csv' }));
	}

	savePicture() {
		const shots = [...this.maps, ...this.images.filter((_, j) => !this.figures[j].hidden), this.grid];
		const ratio = this.maps[0].ratio;
		const pad = 12;
		const night = getComputedStyle(this.root);
		const high = Math.max(...shots.map(c => c.height)) + 2 * pad + 44;
		const wide = shots.reduce((sum, c) => sum + c.width + pad, pad);
		const sheet = el('canvas', { width: wide * ratio, height: high * ratio });
		const ctx = sheet.getContext('2d');
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
		ctx.fillText(
			`${this.live.textContent} · ${this.map_note} · seed ${this.meta.seed}, data ${this.meta.data}`,
			pad,
			high - 14,
		);
		sheet.toBlob(blob => this.download('explorer.png', blob));
	}

	download(name, blob) {
		const link = el('a', { href: URL.createObjectURL(blob), download: name });
		link.click();
		setTimeout(() => URL.revokeObjectURL(link.href), 10000);
		this.tell(`Saved ${name} to your downloads.`);
	}

	destroy() {
		for (const end of this.ends) end();
		clearTimeout(this.waiting);
		this.root.remove();
	}
}

async function render({ model, el: host }) {
	const explorer = new Explorer(model, host, await openSheet(model));
	if (explorer.meta.kernel) model.send({ do: 'ready' });
	host.prockd = explorer; // for whoever looks with the browser's own tools
	return () => explorer.destroy();
}
export default { render };
