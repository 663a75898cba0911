// What do prototypes do? A row each: the change without it, the part it shows, its best patches; ticked ones go together.

// where an interval lies on a scale of -limit..limit, in percent of its width
function ends([low, change, high], limit) {
	const at = v => clamp(50 + (50 * v) / limit, 0, 100);
	return { left: at(low), width: Math.max(0.5, at(high) - at(low)), dot: at(change) };
}

class Causes {
	constructor(model, host) {
		this.model = model;
		this.body = el('div.prk-causes-list', { role: 'list', 'aria-label': 'Prototypes' });
		const send = what => () => model.send({ do: what });
		this.buttons = {
			off: button('Switch off', 'What changes without the ticked prototypes, all together?', send('off')),
			each: button(
				'Each alone',
				'Remove every prototype, one at a time, and put the greatest change first',
				send('each'),
			),
			undo: button('Undo', 'What was off before', send('undo')),
			redo: button('Redo', 'What was off after', send('redo')),
		};
		const words = el('input', {
			type: 'search',
			placeholder: 'Search…',
			'aria-label': 'Show prototypes with these words in name or part',
			oninput: e => {
				this.words = e.target.value.toLowerCase();
				this.draw();
			},
		});
		this.words = '';
		this.note = el('span.prk-soft');
		const bar = el('div.prk-bar', {}, words, ...Object.values(this.buttons), this.note);
		this.root = el('div', { className: 'prk prk-causes' }, bar, this.body);
		this.root.setAttribute('data-lm-suppress-shortcuts', 'true');
		host.append(this.root);
		this.draw = this.draw.bind(this);
		this.opened = this.opened.bind(this);
		for (const name of ['rows', 'ticked', 'steps', 'busy']) model.on(`change:${name}`, this.draw);
		model.on('change:sheet', this.opened);
		this.ends = watch(this.root, () => {}, this.draw);
		this.opened();
	}
	opened() {
		if (this.url) URL.revokeObjectURL(this.url);
		const data = u8(this.model.get('sheet'));
		this.url = data.length ? URL.createObjectURL(new Blob([data], { type: 'image/webp' })) : '';
		this.draw();
	}
	tick(k, on) {
		const others = this.model.get('ticked').filter(n => n !== k);
		this.model.set('ticked', on ? [...others, k] : others);
		this.model.save_changes();
	}
	strip(row, { side, columns, lines }) {
		return Array.from({ length: row.thumbs }, (_, i) => {
			const thumb = el('span.prk-thumb');
			Object.assign(thumb.style, {
				width: `${side}px`,
				height: `${side}px`,
				backgroundImage: `url(${this.url})`,
				backgroundPosition: `${-side * (i + columns * Math.floor(row.line / lines))}px ${-side * (row.line % lines)}px`,
			});
			return thumb;
		});
	}
	row(row, limit, ticked, layout) {
		const on = ticked.includes(row.k);
		const box = el('input', { type: 'checkbox', checked: on, onchange: e => this.tick(row.k, e.target.checked) });
		box.dataset.k = row.k;
		const parts = [el('span.prk-soft', { title: row.part || '' }, row.part || '')];
		let told = '';
		if (row.change) {
			const [low, change, high] = row.change;
			const { left, width, dot } = ends(row.change, limit);
			const bar = el('i', {});
			Object.assign(bar.style, { left: `${left}%`, width: `${width}%` });
			const mark = el('b', {});
			mark.style.left = `${dot}%`;
			told = `${points(change)} (${points(low)} to ${points(high)})`;
			const title = `Change of the metric without it, in points, with its 95 % interval: ${told}`;
			const clear = low > 0 || high < 0;
			parts.push(el('span', { title, className: clear ? 'prk-effect prk-clear' : 'prk-effect' }, bar, mark));
			parts.push(el('span.prk-told', {}, told));
			if (row.classes) parts.push(el('span', { className: 'prk-soft prk-classes' }, row.classes));
		}
		const label = el('label', { title: row.name }, box, el('bdi.prk-name', {}, row.name));
		const strip = el('span.prk-strip-of', { role: 'img' }, ...this.strip(row, layout));
		strip.setAttribute('aria-label', `Best patches of ${row.name}`);
		return el('div.prk-cause', { role: 'listitem', 'aria-current': on }, label, ...parts, strip);
	}
	draw() {
		const { model } = this;
		this.root.classList.toggle('prk-dark', dark(this.root));
		const rows = model.get('rows');
		const ticked = model.get('ticked');
		const layout = model.get('layout_of_sheet');
		const asked = row => `${row.name} ${row.part}`.toLowerCase().includes(this.words);
		const limit = Math.max(1, ...rows.flatMap(row => (row.change || []).map(Math.abs)));
		const focused = document.activeElement?.dataset?.k;
		this.body.replaceChildren(...rows.filter(asked).map(row => this.row(row, limit, ticked, layout)));
		if (focused) this.body.querySelector(`[data-k="${focused}"]`)?.focus();
		const { undo, redo } = model.get('steps');
		const busy = model.get('busy');
		this.buttons.off.disabled = busy || !ticked.length;
		this.buttons.each.disabled = busy || !rows.length;
		this.buttons.undo.disabled = busy || !undo;
		this.buttons.redo.disabled = busy || !redo;
		this.note.textContent = busy ? 'measuring…' : ticked.length ? `${ticked.length} of ${rows.length} ticked` : '';
	}
	destroy() {
		this.ends();
		for (const name of ['rows', 'ticked', 'steps', 'busy']) this.model.off(`change:${name}`, this.draw);
		this.model.off('change:sheet', this.opened);
		if (this.url) URL.revokeObjectURL(this.url);
		this.root.remove();
	}
}

function render({ model, el: host }) {
	const causes = new Causes(model, host);
	return () => causes.destroy();
}
export default { render };
