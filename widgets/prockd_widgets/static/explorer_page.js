// The elements of the explorer, and what each of them does.
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

	zoomButtons() {
		const buttons = [
			button('−', 'Zoom out (-)', () => this.zoomBy(1 / 1.5)),
			button('+', 'Zoom in (+)', () => this.zoomBy(1.5)),
			button('Fit', 'The whole map (0)', () => this.zoomBy(0)),
		];
		const about = 'Lay the map out by UMAP; takes a minute or two, all else goes on';
		if (this.meta.kernel) buttons.push(button('UMAP', about, () => this.model.send({ do: 'umap' })));
		return buttons;
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

	mapSection() {
		this.maps = this.meta.models.map((m, i) =>
			this.pane(`Map of the patches, ${m.name}. Plus and minus zoom.`, 12, () => this.points(i)),
		);
		this.mapNote = el('figcaption');
		this.legend = el('div.prk-legend', {});
		const head = el('div.prk-head', {}, el('h3', {}, 'Map'));
		return el('section.prk-map', {}, head, this.twins(this.maps), this.mapNote, this.legend);
	}

	imageSection() {
		this.images = this.meta.models.map(m =>
			this.pane(`Image, ${m.name}. Page keys change it.`, 99, c => {
				const [a, b] = [c.width / this.w, c.height / this.h];
				return {
					n: this.N,
					x: n => ((n % this.w) + 0.5) * a,
					y: n => (Math.floor(n / this.w) + 0.5) * b,
					patch: n => this.image * this.N + n,
				};
			}),
		);
		const kinds = [
			['prototype', 'Prototype', 'How much each patch belongs to the prototype'],
			['likeness', 'Like this patch', 'Click a patch: what looks like it, in all images'],
		];
		this.heatKind = segmented('Heat-map of', kinds, '', show => this.set({ show }));
		const styles = [
			[false, 'Raw', 'One colour a patch, as the model sees it'],
			[true, 'Smoothed', 'Interpolated between patches: pretty, but finer than what is known'],
		];
		this.smoothing = segmented('Heat-map drawn', styles, false, smooth => this.set({ smooth }));
		this.slider = opacitySlider(opacity => this.set({ opacity }));
		const [scale, scaleName] = colourBar('assignment');
		Object.assign(this, { scaleName, imageNote: el('figcaption'), nearNote: el('figcaption') });
		this.near = el('div.prk-near', { role: 'group', 'aria-label': 'Nearest patches' });
		const turn = el(
			'span.prk-set',
			{},
			button('‹', 'Previous image (Page Up)', () => this.step(-1)),
			button('›', 'Next image (Page Down)', () => this.step(1)),
		);
		const heat = el('label', {}, 'Heat ', this.slider);
		return el(
			'section.prk-image',
			{},
			el('div.prk-head', {}, this.heatKind.node, this.smoothing.node, heat, turn),
			this.twins(this.images),
			el('div.prk-head', {}, this.imageNote, scale),
			this.nearNote,
			this.near,
		);
	}

	patchSection() {
		this.cells = [];
		this.gridTitle = el('h3');
		this.grid = this.pane('Patches.', 60, () => ({
			n: this.cells.length,
			x: i => this.cells[i].x + this.cells[i].side / 2,
			y: i => this.cells[i].y + this.cells[i].side / 2,
			patch: i => this.cells[i].patch,
		}));
		this.pager = pageButtons(this);
		const head = el('div.prk-head', {}, this.gridTitle, el('span.prk-set', {}, ...this.pager));
		return el('section.prk-patches', {}, head, this.grid.node);
	}

	tableSection() {
		const { models, parts } = this.meta;
		this.whose = segmented(
			'Prototypes of',
			models.map((m, i) => [i, m.name]),
			0,
			i => this.set({ model: i, prototype: this.focus(i) }),
		);
		const columns = [
			['name', 'prototype', ''],
			['size', 'patches', 'Patches that prefer it'],
			...(parts
				? [
						[
							'purity',
							'part',
							'The part it shows, and the share of its strongest patches, one an image, that lie there',
						],
					]
				: []),
			['entropy', 'entropy', '0: its patches are sure, 1: undecided'],
			['best', 'best', 'Its nearest patch'],
			['other', 'nearest', 'The most similar prototype, with the cosine'],
		];
		this.headings = columns.map(([key, text, about]) => {
			const number = key === 'size' || key === 'entropy';
			const sorter = button(text, about || text, () => this.sortBy(key));
			return [key, el(number ? 'th.prk-number' : 'th', { scope: 'col' }, sorter)];
		});
		this.body = el('tbody');
		const head = el('thead', {}, el('tr', {}, ...this.headings.map(([, th]) => th)));
		this.scroll = el('div.prk-scroll', {}, el('table', { 'aria-label': 'Prototypes' }, head, this.body));
		return el('section.prk-table', {}, el('div.prk-edit', {}, ...this.editors()), this.scroll);
	}

	// what the prototype in focus is renamed, switched and merged with
	editors() {
		this.nameField = el('input', {
			maxLength: 80,
			placeholder: 'no prototype',
			onchange: e => this.rename(this.prototype, e.target.value),
		});
		this.nameField.setAttribute('aria-label', 'Name of the prototype');
		this.switchButton = button('Disable', 'Leave it out of assignment and augmentation', () =>
			this.toggle(this.prototype),
		);
		const label = 'Merge another prototype into this one';
		this.mergeWith = el('select', {
			title: label,
			onchange: e => {
				const other = +e.target.value;
				e.target.value = '';
				this.merge(this.prototype, other);
			},
		});
		this.mergeWith.setAttribute('aria-label', label);
		return [this.two ? this.whose.node : null, this.nameField, this.switchButton, this.mergeWith];
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
}
