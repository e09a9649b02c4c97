import { expect, test } from 'bun:test';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { lockDataDirectory } from '../../../src/database/index.ts';
import { errorOf, temporaryDirectory } from './world.ts';

const HOLDER = `
  import { lockDataDirectory } from '${import.meta.dir}/../../../src/database/index.ts';
  const lock = lockDataDirectory(process.argv[1]);
  console.log('locked');
  process.stdin.resume();
  globalThis.keep = lock;`;

async function startHolder(directory: string) {
  const child = Bun.spawn([process.execPath, '-e', HOLDER, directory], { stdin: 'pipe', stdout: 'pipe' });
  const reader = child.stdout.getReader();
  await reader.read();
  reader.releaseLock();
  return child;
}

test('a second lock in this process is refused, and does not drop the first', async () => {
  using directory = temporaryDirectory();
  {
    using _ = lockDataDirectory(directory.path);
    for (let i = 0; i < 2; i++) {
      const error = await errorOf(() => lockDataDirectory(directory.path));
      expect(error).toMatchObject({ code: 'DATA_DIR_LOCKED' });
      expect(error.message).toBe(`${directory.path} is in use by process ${process.pid}`);
    }
    const script = `import { lockDataDirectory } from '${import.meta.dir}/../../../src/database/index.ts';
      try { lockDataDirectory('${directory.path}'); console.log('taken'); } catch (error) { console.log(error.code, error.message); }`;
    expect(Bun.spawnSync([process.execPath, '-e', script]).stdout.toString()).toBe(
      `DATA_DIR_LOCKED ${directory.path} is in use by process ${process.pid}\n`,
    );
  }
  lockDataDirectory(directory.path).release();
});

test('the lock of another process is refused by its number, and is free after kill -9', async () => {
  using directory = temporaryDirectory();
  const child = await startHolder(directory.path);
  const error = await errorOf(() => lockDataDirectory(directory.path));
  expect(error).toMatchObject({ code: 'DATA_DIR_LOCKED', exitCode: 11 });
  expect(error.message).toContain(`process ${child.pid}`);
  child.kill('SIGKILL');
  await child.exited;
  using lock = lockDataDirectory(directory.path);
  expect(statSync(join(lock.directory, 'server.lock')).mode & 0o777).toBe(0o600);
});

test("a child that outlives the server does not keep the server's lock", async () => {
  using directory = temporaryDirectory();
  const script = `${HOLDER.replace("console.log('locked');", "const child = Bun.spawn(['sleep', '60'], { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' }); child.unref(); console.log(child.pid);")}`;
  const server = Bun.spawn([process.execPath, '-e', script, directory.path], {
    stdin: 'pipe',
    stdout: 'pipe',
  });
  const { value } = await server.stdout.getReader().read();
  const grandchild = Number.parseInt(new TextDecoder().decode(value), 10);
  server.kill('SIGKILL');
  await server.exited;
  try {
    lockDataDirectory(directory.path).release();
    process.kill(grandchild, 0);
  } finally {
    process.kill(grandchild, 'SIGKILL');
  }
});
