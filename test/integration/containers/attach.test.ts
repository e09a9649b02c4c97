import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type Attachment, ContainerStartError, findRuntime } from '../../../src/worker/containers/index.ts';
import { ContainerLab } from './rootfs.ts';
import { create, endLab } from './running.ts';

let lab: ContainerLab;
beforeAll(() => {
  lab = new ContainerLab();
});
afterAll(() => endLab(lab));

/** Everything that comes from now on, of both streams. */
async function rest(attachment: Attachment): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const { bytes } of attachment.output()) pieces.push(bytes);
  return Buffer.concat(pieces).toString();
}

for (const name of ['crun', 'runc'] as const) {
  describe(`attached to a container by ${name}`, async () => {
    const runtime = await findRuntime(name);
    const shell = (script: string) => ({ command: ['/bin/sh', '-c', script] });

    test('input goes in, all output comes out, and the exit code after it', async () => {
      const container = await create(lab, runtime, {
        options: { command: ['sh', '-c', 'cat; echo end >&2; exit 5'], interactive: true },
      });
      const attachment = await container.attach();
      await container.start();
      await attachment.write(Buffer.from('first\n'));
      await attachment.write(Buffer.from('second\n'));
      attachment.endInput();
      expect(await rest(attachment)).toBe('first\nsecond\nend\n');
      expect(await attachment.exit).toMatchObject({ exitCode: 5, reason: 'exited' });
      await container.delete();
    });

    test('input of some mebibytes arrives whole, at the pace of its reader', async () => {
      const input = new Uint8Array(3 << 20).map((_, index) => (index * 31) & 0xff);
      const container = await create(lab, runtime, {
        options: { command: ['sha256sum'], interactive: true },
      });
      const attachment = await container.attach();
      await container.start();
      await attachment.write(input);
      attachment.endInput();
      expect(await rest(attachment)).toStartWith(new Bun.CryptoHasher('sha256').update(input).digest('hex'));
      await container.delete();
    });

    test('a process without a reader for its output waits, and loses nothing', async () => {
      const container = await create(lab, runtime, { options: shell('head -c 5000000 /dev/zero') });
      const attachment = await container.attach();
      await container.start();
      let length = 0;
      for await (const { bytes } of attachment.output()) {
        length += bytes.length;
        if (length < 400_000) await Bun.sleep(1);
      }
      expect(length).toBe(5_000_000);
      await container.delete();
    });

    test('an input whose writer is gone has ended', async () => {
      const container = await create(lab, runtime, { options: { command: ['cat'], interactive: true } });
      const attachment = await container.attach();
      await container.start();
      await attachment[Symbol.asyncDispose]();
      expect(await container.wait()).toMatchObject({ exitCode: 0 });
      await container.delete();
    });

    test('a terminal is one, has a size, and can be resized', async () => {
      const container = await create(lab, runtime, {
        options: {
          ...shell(
            'stty -echo; stty size; read x; stty size; test -t 0 && test -t 1 && echo terminal; exit 4',
          ),
          terminal: true,
          terminalSize: { rows: 33, columns: 111 },
        },
      });
      const attachment = await container.attach();
      await container.start();
      const output = attachment.output();
      let text = '';
      while (!text.includes('\n')) text += Buffer.from((await output.next()).value?.bytes ?? []).toString();
      expect(text).toBe('33 111\r\n');
      attachment.resize({ rows: 10, columns: 20 });
      await attachment.write(Buffer.from('go\n'));
      for await (const { bytes } of output) text += Buffer.from(bytes).toString();
      expect(text).toBe('33 111\r\n10 20\r\nterminal\r\n');
      expect(await attachment.exit).toMatchObject({ exitCode: 4 });
      await container.delete();
    });

    test('a second command runs in the container, with its own user, variables and exit code', async () => {
      const container = await create(lab, runtime, {
        image: { Env: ['A=image'], WorkingDir: '/home/app' },
        options: { command: ['sleep', '1000'] },
      });
      await container.start();
      const attachment = await container.exec({
        command: [
          '/bin/sh',
          '-c',
          'id -u; echo "$A $B $HOME"; readlink /proc/self/cwd; cat /proc/1/comm; exit 9',
        ],
        user: 'app',
        env: { B: 'exec' },
      });
      expect(await rest(attachment)).toBe('1000\nimage exec /home/app\n/home/app\nsleep\n');
      expect(await attachment.exit).toMatchObject({ exitCode: 9 });

      const missing = container.exec({ command: ['absent'] });
      expect(missing).rejects.toBeInstanceOf(ContainerStartError);
      expect(missing).rejects.toMatchObject({ exitCode: 127 });
      await missing.catch(() => {});

      const terminal = await container.exec({
        command: ['/bin/sh', '-c', 'read x; stty size; echo "got $x"'],
        terminal: true,
        terminalSize: { rows: 5, columns: 6 },
      });
      await terminal.write(Buffer.from('input\n'));
      const text = await rest(terminal);
      expect(text).toContain('5 6\r\n');
      expect(text).toContain('got input\r\n');
      expect(await terminal.exit).toMatchObject({ exitCode: 0 });
      expect(container.status()).toBe('running');
      await container.delete();
    });

    test('several commands run at the same time, and end with their container', async () => {
      const container = await create(lab, runtime, { options: { command: ['sleep', '1000'] } });
      await container.start();
      const echoes = [1, 2, 3].map(async (number) => {
        const attachment = await container.exec({ command: ['cat'], interactive: true });
        await attachment.write(Buffer.from(`number ${number}`));
        attachment.endInput();
        return rest(attachment);
      });
      expect(await Promise.all(echoes)).toEqual(['number 1', 'number 2', 'number 3']);
      const sleeping = await container.exec({ command: ['sleep', '1000'] });
      await container.kill('KILL');
      expect(await sleeping.exit).toMatchObject({ exitCode: 137, signal: 'SIGKILL' });
      await container.delete();
    });

    test('a second command needs a running container', async () => {
      const container = await create(lab, runtime, { options: shell('true') });
      expect(container.exec({ command: ['true'] })).rejects.toMatchObject({ code: 'CONTAINER_FAILED' });
      await container.start();
      await container.wait();
      expect(container.attach()).rejects.toMatchObject({ code: 'CONTAINER_FAILED' });
      await container.delete();
    });
  });
}
