import { importEntry } from './entries/index.ts';

/**
 * What imgcred starts itself as child processes. They are no commands for people: what they need to know comes on their
 * standard input, or in a file, never as an argument. Each has an entry point of its own, and loads nothing that it does
 * not need: there is a supervisor for each container.
 */
const CHILDREN: Record<string, () => Promise<number>> = {
  'internal-container-supervisor': async () =>
    (
      await importEntry<typeof import('./worker/containers/supervisor.ts')>('worker/containers/supervisor')
    ).superviseContainer(),
  'internal-mount-server': async () =>
    (await importEntry<typeof import('./mounts/run-server.ts')>('mounts/run-server')).runMountServer(),
};

const argv = process.argv.slice(2);
const child = CHILDREN[argv[0] ?? ''];
process.exitCode = await (child?.() ?? command());
// Sockets that are kept alive, and a FUSE module's handles, must not hold the process once the work is done.
process.exit();

async function command(): Promise<number> {
  return (await importEntry<typeof import('./cli/index.ts')>('cli/index')).main(argv);
}
