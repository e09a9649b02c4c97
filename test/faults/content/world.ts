import { spawnSync } from 'node:child_process';
import { buildImage, noise, SPAN, type TestImage } from '../../unit/content/support/image.ts';

/** The image that all processes of a test read: the same bytes in each. */
export function makeTestImage(): Promise<TestImage> {
  return buildImage([
    [
      { name: 'one', bytes: noise(20 * SPAN, 1) },
      { name: 'two', bytes: noise(3 * SPAN, 2) },
    ],
    [{ name: 'three', bytes: noise(10 * SPAN, 3) }],
  ]);
}

/** Runs a command that must succeed. */
export function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
}
