// The frame of the explorer: tools, status, hover card, and panes on which one hovers, clicks, drags and moves by key.
class ExplorerPage extends ExplorerData {
	build() {
		const { meta } = this;
		this.two = meta.models.length > 1;
		const columns = [
			[this.mapSection(), this.patchSection()],
			[this.imageSection(), this.tableSection()],
		];
		this.card = this.hoverCard();
		this.root = el(
			'div',
			{
				className: `prk prk-explorer${this.two ? ' prk-two' : ''}`,
				role: 'region',
				'aria-label': 'Prototype explorer',
				onkeydown: e => this.key(e),
			},
			this.toolBar(),
			el('div.prk-panes', {}, ...columns.map(sections => el('div.prk-column', {}, ...sections))),
			this.statusBar(),
			this.card,
		);
		this.root.setAttribute('data-lm-suppress-shortcuts', 'true');
		this.host.append(this.root);
	}

	toolBar() {
		const { meta } = this;
		const colours = [
			['prototype', 'prototype'],
			...(meta.parts ? [['part', 'true part']] : []),
			['class', 'class'],
			...(this.two ? [['agreement', 'agreement']] : []),
		];
		this.colour = el(
			'select',
			{ onchange: e => this.set({ colour_by: e.target.value }) },
			...colours.map(([value, text]) => el('option', { value }, text)),
		);
		const tools = [
			['lasso', 'Lasso', 'Draw around patches'],
			['box', 'Box', 'Draw a box'],
		];
		this.tools = segmented('Drag selects', tools, 'lasso', tool => {
			this.tool = tool;
			this.tools.show(tool);
		});
		this.back = button('Undo', 'Take the last rename, merge or switch back (Ctrl+Z)', () => this.undo());
		return el(
			'div.prk-bar',
			{},
			el('label', {}, 'Colour ', this.colour),
			el('span.prk-set', {}, 'Drag ', this.tools.node),
			el('span.prk-set', {}, ...this.zoomButtons()),
			el('span.prk-space', {}),
			this.back,
			el('span.prk-set', {}, 'Save ', el('span.prk-segments', {}, ...this.saveButtons())),
		);
	}

	saveButtons() {
		const buttons = [
			button('CSV', 'The selected patches as a table', () => this.saveTable('csv')),
			button('JSON', 'The selected patches, names and switches', () => this.saveTable('json')),
			button('PNG', 'What is shown, as a picture', () => this.savePicture()),
		];
		if (this.meta.kernel)
			buttons.push(
				button('HTML', 'One file that opens anywhere, offline', () => this.model.send({ do: 'html' })),
				button('Bank', 'Save the prototypes with their names and switches', () => this.model.send({ do: 'bank' })),
			);
		return buttons;
	}

	// one pane a model, side by side, with the model's name where there are two
	twins(panes) {
		const name = m => (this.two ? el('figcaption', {}, m.name) : null);
		return el('div.prk-twins', {}, ...this.meta.models.map((m, i) => el('figure', {}, name(m), panes[i].node)));
	}

	statusBar() {
		const { note } = this.meta;
		this.live = el('span', { role: 'status', 'aria-live': 'polite' });
		this.message = el('span.prk-soft', { role: 'status', 'aria-live': 'polite' }, this.status);
		const help = el(
			'details',
			{},
			el('summary', {}, 'Keys'),
			'Tab goes from pane to pane. In a pane: arrows move, Enter picks, Space adds or drops, Shift with a drag adds, Alt drops, Escape clears. ',
			'Map: + − 0 zoom. Image: Page Up, Page Down. Table: ↑ ↓ move, Enter picks, d switches off or on. Ctrl+Z takes an edit back.',
		);
		const space = el('span.prk-space', {});
		return el('div.prk-status', {}, this.live, space, this.message, note ? el('strong', {}, note) : null, help);
	}

	hoverCard() {
		this.cardPicture = el('canvas', { width: 184, height: 184 });
		this.cardText = el('div');
		return el('div.prk-card', { hidden: true }, this.cardPicture, this.cardText);
	}

	tell(text) {
		this.message.textContent = text;
	}

	// a canvas on which one hovers, clicks, drags and moves by key; centres() tells where its patches are
	pane(label, reach, centres) {
		const c = new Canvas(`${label} Arrows move, Enter picks, Space adds.`);
		const place = e => {
			const r = c.over.getBoundingClientRect();
			return [e.clientX - r.left, e.clientY - r.top];
		};
		let path = null;
		const listen = (event, f) => c.over.addEventListener(event, f);
		listen('pointerdown', e => {
			if (e.button !== 0) return;
			path = [place(e)];
			c.over.setPointerCapture(e.pointerId);
		});
		listen('pointermove', e => {
			const at = place(e);
			if (!path) return this.point(nearest(at, reach, centres(c)), e);
			path.push(at);
			this.point(-1);
			this.mark(c, path);
		});
		listen('pointerup', e => {
			const drawn = path;
			path = null;
			if (!drawn) return;
			const [[x, y]] = drawn;
			const clicked = drawn.every(([a, b]) => Math.hypot(a - x, b - y) < 4);
			if (clicked) this.pick(nearest(place(e), reach, centres(c)), e);
			else this.select(within(drawn, this.tool, centres(c)), e.shiftKey ? 'add' : e.altKey ? 'drop' : 'new');
			this.mark();
		});
		listen('pointercancel', () => {
			path = null;
			this.mark();
		});
		listen('pointerleave', () => {
			if (!path) this.point(-1);
		});
		listen('blur', () => this.point(-1));
		listen('keydown', e => this.paneKey(e, c, centres));
		return c;
	}

	paneKey(e, c, centres) {
		const at = this.hover >= 0 ? this.hover : this.patch;
		if (ARROWS[e.key]) {
			const all = centres(c);
			const i = neighbour(at, ARROWS[e.key], all);
			const r = c.over.getBoundingClientRect();
			this.where = [r.left + all.x(i), r.top + all.y(i)];
			this.point(all.patch(i));
			if (e.shiftKey && this.hover >= 0) this.select([this.hover], 'add');
		} else if (e.key === 'Enter') this.pick(at);
		else if (e.key === ' ' && this.hover >= 0) this.pick(this.hover, { shiftKey: true });
		else return;
		e.preventDefault();
	}

	count() {
		const { selected, P, M, numShown, meta } = this;
		const n = selected.length;
		const seen = new Uint8Array(M);
		const tally = new Uint32Array(256);
		const parts = this.parts();
		const sentences = [];
		let same = 0;
		for (const p of selected) {
			seen[this.at(p)] = 1;
			tally[parts[p]]++;
		}
		const images = seen.reduce((a, b) => a + b, 0);
		const most = tally.indexOf(Math.max(...tally));
		sentences.push(
			n
				? `${count(n)} of ${count(numShown)} patches selected, in ${count(images)} ${images === 1 ? 'image' : 'images'}`
				: `${count(numShown)} patches of ${count(M)} images, none selected`,
		);
		if (n && meta.parts) sentences.push(`${percent(tally[most] / n)} ${meta.parts[most]}`);
		if (this.soft[1]) {
			if (n) for (const p of selected) same += this.agrees(p);
			else for (let p = 0; p < P; p++) same += this.agrees(p);
			sentences.push(
				`${meta.models.map(m => m.name).join(' and ')} agree on ${count(same)} (${percent(same / (n || numShown))})`,
			);
		}
		const text = sentences.join(' · ');
		if (this.live.textContent !== text) this.live.textContent = text;
	}
}
