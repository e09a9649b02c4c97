import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { holds, type Mark, type Suite } from './mark.ts';

/** Name → module with a `suite`. A new suite is a file beside these and a line here. */
const SUITES: Readonly<Record<string, () => Promise<{ suite: Suite }>>> = {
  scheduling: () => import('./scheduling.ts'),
  mount: () => import('./mount.ts'),
  indexing: () => import('./indexing.ts'),
  image: () => import('./image.ts'),
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'boolean', default: false }, directory: { type: 'string' } },
});
const directory = values.directory ?? path.join(tmpdir(), 'imgcred-bench');
mkdirSync(directory, { recursive: true });

const marks: Mark[] = [];
for (const name of positionals.length > 0 ? positionals : Object.keys(SUITES)) {
  const load = SUITES[name];
  if (load === undefined) {
    console.error(`no suite '${name}'; there are: ${Object.keys(SUITES).join(', ')}`);
    process.exit(2);
  }
  const { suite } = await load();
  marks.push(...(await suite(directory)));
}

if (values.json) console.log(JSON.stringify(marks, null, 2));
else for (const mark of marks) console.log(line(mark));
process.exit(marks.every(holds) ? 0 : 1);

function line(mark: Mark): string {
  const bound = mark.least !== undefined ? `≥ ${mark.least}` : mark.most !== undefined ? `≤ ${mark.most}` : '';
  const verdict = bound === '' ? '    ' : holds(mark) ? 'ok  ' : 'MISS';
  const against = mark.against === undefined ? '' : ` × ${mark.against}`;
  return `${verdict} ${mark.name}: ${mark.value.toFixed(2)} ${mark.unit}${against}  ${bound}  ${mark.detail ?? ''}`.trimEnd();
}
