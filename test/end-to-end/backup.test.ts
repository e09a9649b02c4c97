import { Database as Sqlite } from 'bun:sqlite';
import { expect, test } from 'bun:test';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { Sandbox } from '../fixtures/executable/index.ts';

const BALLAST_MB = 200;

test('the gateway answers while a large database is backed up', async () => {
  await using sandbox = await Sandbox.make();
  const first = await sandbox.serve(['--role', 'gateway,scheduler']);
  await first.stop();
  const raw = new Sqlite(join(sandbox.dataDirectory, 'imgcred.db'));
  raw.run('CREATE TABLE ballast (bytes BLOB NOT NULL) STRICT');
  const insert = raw.prepare('INSERT INTO ballast VALUES (randomblob(1000000))');
  raw.transaction(() => {
    for (let i = 0; i < BALLAST_MB; i += 1) insert.run();
  })();
  raw.close();

  const server = await sandbox.serve(['--role', 'gateway,scheduler']);
  const headers = {
    authorization: `Bearer ${await sandbox.adminToken()}`,
    'content-type': 'application/json',
  };
  let underWay = true;
  // Its head comes when the copy is made: that is what used to hold up everybody else.
  const backup = fetch(`${server.url}/v1/backup`, { method: 'POST', headers, body: '{}' }).finally(() => {
    underWay = false;
  });
  let answers = 0;
  while (underWay) {
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    answers += 1;
  }
  const response = await backup;
  expect(response.status).toBe(200);
  const target = join(sandbox.directory, 'backup');
  await Bun.write(target, response);
  expect(answers).toBeGreaterThan(20);

  // And it is one, whole.
  expect(statSync(target).size).toBeGreaterThan(BALLAST_MB * 1_000_000);
  await server.stop();
  const restored = join(sandbox.directory, 'restored');
  const done = await sandbox.run(['restore', target], { env: { IMGCRED_DATA_DIR: restored } });
  expect(done).toMatchObject({ code: 0 });
}, 120_000);
