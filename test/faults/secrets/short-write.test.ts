import { expect, test } from 'bun:test';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createKeyFile,
  generateKeyLine,
  readKeyFile,
  rewriteKeyFile,
} from '../../../src/secrets/key-file.ts';

const MODULE = join(import.meta.dir, '../../../src/secrets/key-file.ts');

test('a master key that only a part of can be written leaves the file as it was', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'imgcred-short-'));
  const path = join(directory, 'master-key');
  try {
    await createKeyFile(path);
    // As long as a file may become in the process below, less half a line.
    while (readFileSync(path).length < 1024 - 80)
      await rewriteKeyFile(path, { add: await generateKeyLine() });
    const before = readFileSync(path, 'utf8');
    const change = `import { generateKeyLine, rewriteKeyFile } from ${JSON.stringify(MODULE)};
      await rewriteKeyFile(${JSON.stringify(path)}, { add: await generateKeyLine() });`;
    const child = Bun.spawn(
      ['bash', '-c', `trap '' XFSZ; ulimit -f 1; exec "$0" -e "$1"`, process.execPath, change],
      {
        stdout: 'ignore',
        stderr: 'pipe',
      },
    );
    const said = await new Response(child.stderr).text();
    expect(await child.exited).not.toBe(0);
    expect(said).toContain('cannot be written');
    expect(readFileSync(path, 'utf8')).toBe(before);
    expect((await readKeyFile(path)).length).toBeGreaterThan(5);
    expect(readdirSync(directory)).toEqual(['master-key']);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
