// A process that changes secrets and master keys without end, and says on stdout what it is about to do and what
// is done. The test kills it at a random moment.
import { writeSync } from 'node:fs';
import { Secret } from '../../../src/credentials/index.ts';
import { lockDataDirectory, openDatabase } from '../../../src/database/index.ts';
import { openSecrets } from '../../../src/secrets/index.ts';

const [directory = '', firstNumber = '0'] = process.argv.slice(2);
const BY = { actor: 'writer' };
const say = (line: string) => writeSync(1, `${line}\n`);

using _ = lockDataDirectory(directory);
using database = openDatabase(directory);
const { administration, keyring, store, workspaces } = await openSecrets(database, directory, { env: {} });
for (const name of ['one', 'two', 'three', 'four']) {
  const { id } = await workspaces.ensure(name);
  for (const secret of ['a', 'b']) {
    if (store.find(id, secret) === undefined)
      await store.create(id, { name: secret, value: new Secret('0') }, BY);
  }
}
say('ready');

const setting = (async () => {
  for (let number = Number(firstNumber); ; number++) {
    const workspace = database.workspaces.get(['one', 'two', 'three', 'four'][number % 4] ?? '');
    const name = ['a', 'b'][(number >> 2) % 2] ?? '';
    say(`begin ${workspace.name}/${name} ${number}`);
    await store.set(workspace.id, name, new Secret(String(number)), BY, 'none');
    say(`done ${workspace.name}/${name} ${number}`);
  }
})();

const rotating = (async () => {
  for (;;) {
    const { from, rewrapped } = await administration.rotateMasterKey(BY);
    say(`rotated ${rewrapped}`);
    if (keyring.list().find((key) => key.id === from)?.uses === 0)
      await administration.retireMasterKey(from, BY);
  }
})();

await Promise.race([setting, rotating]);
