// The table of tries: a heading sorts, words filter, ticked rows are drawn, compared, copied or deleted.
const NUMBERS = ['try', 'labels', 'steps', 'seed', 'z', 'z⁺', 'seconds'];

// what a cell says
function cellText(row, key) {
	const value = row[key];
	if (value == null) return '–';
	if (key === 'z' || key === 'z⁺') return `${(100 * value).toFixed(1)}%`;
	if (key === 'try' && row.resumed) return `${value}, went on from ${row.resumed}`;
	if (key === 'steps' && row.stopped) return `${value}, stopped`;
	return String(value);
}

// rows that have all the words somewhere; what is unknown comes last in both directions
function arranged(rows, keys, { key, down, words }) {
	const asked = words.toLowerCase().split(/\s+/).filter(Boolean);
	const told = row => keys.map(k => cellText(row, k).toLowerCase()).join(' ');
	const kept = rows.filter(row => asked.every(word => told(row).includes(word)));
	if (!key) return kept;
	const sign = down ? -1 : 1;
	return kept.sort((a, b) => {
		const [x, y] = [a[key], b[key]];
		if (x == null || y == null) return (x == null) - (y == null);
		return sign * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y)));
	});
}

class TryTable {
	constructor(model, host) {
		this.model = model;
		this.order = { key: 'try', down: false, words: '' };
		this.head = el('tr');
		this.body = el('tbody');
		this.told = el('div', { role: 'status', 'aria-live': 'polite' });
		const words = el('input', {
			type: 'search',
			placeholder: 'Filter…',
			'aria-label': 'Show tries with these words',
			oninput: e => {
				this.order.words = e.target.value;
				this.draw();
			},
		});
		const send = what => () => model.send({ do: what });
		this.buttons = {
			compare: button('Compare', 'The second ticked try against the first, on the same images', send('compare')),
			load: button('Take its settings', 'Set the knobs as in the ticked try', send('load')),
			delete: button('Delete', 'Take the ticked tries out of the table; Undo brings them back', send('delete')),
			undo: button('Undo', 'Bring back what was deleted last', send('undo')),
		};
		this.bar = el('div.prk-bar', {}, words, ...Object.values(this.buttons), el('span.prk-soft'));
		const table = el('table', { 'aria-label': 'Tries' }, el('thead', {}, this.head), this.body);
		this.scroll = el('div.prk-scroll', {}, table);
		this.empty = el('p.prk-soft', {}, 'Every try will be a row here: press Run.');
		this.root = el('div', { className: 'prk prk-tries' }, this.bar, this.scroll, this.empty, this.told);
		this.root.setAttribute('data-lm-suppress-shortcuts', 'true');
		host.append(this.root);
		this.draw = this.draw.bind(this);
		for (const name of ['rows', 'ticked', 'deleted', 'comparison', 'busy']) model.on(`change:${name}`, this.draw);
		this.ends = watch(this.root, () => {}, this.draw);
		this.draw();
	}
	sort(key) {
		const { order } = this;
		order.down = order.key === key ? !order.down : NUMBERS.includes(key) && key !== 'try';
		order.key = key;
		this.draw();
		this.head.querySelector(`[data-key="${key}"]`)?.focus();
	}
	tick(number, on) {
		const others = this.model.get('ticked').filter(n => n !== number);
		this.model.set('ticked', on ? [...others, number] : others); // in the order of ticking: the first is the base
		this.model.save_changes();
	}
	draw() {
		const { model, order } = this;
		this.root.classList.toggle('prk-dark', dark(this.root));
		const rows = model.get('rows');
		const ticked = model.get('ticked');
		const keys = rows.length ? Object.keys(rows[0]).filter(key => key !== 'stopped' && key !== 'resumed') : [];
		const shown = arranged(rows, keys, order);
		this.scroll.hidden = !rows.length;
		this.empty.hidden = rows.length > 0;
		this.head.replaceChildren(
			el('th', {}, el('span.prk-hidden', {}, 'chosen')),
			...keys.map(key => {
				const sorted = order.key === key;
				const title = `Sort by ${key}`;
				const sign = sorted ? (order.down ? ' ▾' : ' ▴') : '';
				const press = el('button', { type: 'button', title, onclick: () => this.sort(key) }, key + sign);
				press.dataset.key = key;
				const cell = el(NUMBERS.includes(key) ? 'th.prk-number' : 'th', { scope: 'col' }, press);
				if (sorted) cell.setAttribute('aria-sort', order.down ? 'descending' : 'ascending');
				return cell;
			}),
		);
		const focused = document.activeElement?.dataset?.try;
		const bestOf = key => Math.max(...rows.map(row => row[key] ?? -1));
		const best = { z: bestOf('z'), 'z⁺': bestOf('z⁺') };
		this.body.replaceChildren(
			...shown.map(row => {
				const number = row.try;
				const box = el('input', {
					type: 'checkbox',
					checked: ticked.includes(number),
					'aria-label': `Choose try ${number}`,
					onchange: e => this.tick(number, e.target.checked),
				});
				box.dataset.try = number;
				const cells = keys.map(key => {
					const tops = rows.length > 1 && key in best && row[key] === best[key];
					const name = `${NUMBERS.includes(key) ? 'prk-number' : `prk-${key}`}${tops ? ' prk-best' : ''}`;
					return el('td', { className: name, title: key === 'changed' ? cellText(row, key) : '' }, cellText(row, key));
				});
				return el('tr', { 'aria-selected': ticked.includes(number) }, el('td', {}, box), ...cells);
			}),
		);
		if (focused) this.body.querySelector(`[data-try="${focused}"]`)?.focus();
		const there = ticked.filter(n => rows.some(row => row.try === n));
		const busy = model.get('busy');
		this.buttons.compare.disabled = there.length !== 2 || busy;
		this.buttons.load.disabled = there.length !== 1;
		this.buttons.delete.disabled = !there.length;
		this.buttons.undo.disabled = !model.get('deleted');
		this.bar.hidden = !rows.length && !model.get('deleted');
		const filtered = shown.length < rows.length ? `${shown.length} of ${rows.length} shown` : '';
		const hint = there.length === 2 ? '' : 'tick two to compare';
		this.bar.lastChild.textContent = filtered || (rows.length > 1 ? hint : '');
		this.compare(model.get('comparison'));
	}
	compare({ rows = [], note = '' }) {
		const text = JSON.stringify([rows, note]);
		if (text === this.compared) return;
		this.compared = text;
		if (!rows.length) return this.told.replaceChildren(...(note ? [el('p', {}, note)] : []));
		const keys = Object.keys(rows[0]);
		const cells = row => keys.map(key => el('td', {}, row[key] ?? '–'));
		this.told.replaceChildren(
			el(
				'table',
				{ 'aria-label': 'Comparison' },
				el('thead', {}, el('tr', {}, ...keys.map(key => el('th', { scope: 'col' }, key)))),
				el('tbody', {}, ...rows.map(row => el('tr', {}, ...cells(row)))),
			),
			el('p.prk-soft', {}, note),
		);
	}
	destroy() {
		this.ends();
		for (const name of ['rows', 'ticked', 'deleted', 'comparison', 'busy']) this.model.off(`change:${name}`, this.draw);
		this.root.remove();
	}
}

function render({ model, el: host }) {
	const table = new TryTable(model, host);
	return () => table.destroy();
}
export default { render };
