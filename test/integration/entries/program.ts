import { importEntry } from '../../../src/entries/index.ts';

for (const path of ['broken', 'nowhere'])
  await importEntry(path).catch((thrown: unknown) => console.log(path, String(thrown)));
