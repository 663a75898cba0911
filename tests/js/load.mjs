// The files of a widget as the browser gets them, one behind the other; what is asked for by name is exported.
import { readFileSync } from 'node:fs';

const STATIC = new URL('../../widgets/prockd_widgets/static/', import.meta.url);

export function load(files, names) {
	const text = files.map(name => readFileSync(new URL(`${name}.js`, STATIC), 'utf8')).join('\n');
	const module = `${text}\nexport { ${names.join(', ')} };`;
	return import(`data:text/javascript;base64,${Buffer.from(module).toString('base64')}`);
}

// what stands in for the kernel's model
export const modelOf = state => ({ get: name => state[name] });

export const bytes = values => new DataView(Uint8Array.from(values).buffer);
