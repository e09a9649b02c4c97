import { importEntry } from './entries/index.ts';

/**
 * What imgcred starts itself as child processes. They are no commands for people: what they need to know comes on
 * their standard input, or in a file, never as an argument. Each has an entry point of its own, and loads nothing that
 * it does not need: there is a supervisor for each container.
 */
const CHILDREN = new Map<string, () => Promise<() => Promise<number>>>([
  [
    'internal-container-supervisor',
    async () =>
      (await importEntry<typeof import('./worker/containers/supervisor.ts')>('worker/containers/supervisor'))
        .superviseContainer,
  ],
  [
    'internal-mount-server',
    async () =>
      (await importEntry<typeof import('./mounts/run-server.ts')>('mounts/run-server')).runMountServer,
  ],
]);

const argv = process.argv.slice(2);
const load = CHILDREN.get(argv[0] ?? '') ?? command;
const run = await load().catch((thrown: unknown) => {
  // Nothing else is loaded: there are no errors of our own yet.
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  process.stderr.write(
    `imgcred: the executable can't be loaded: ${why.replace(/\s+/g, ' ')}\n  install it again\n`,
  );
  process.exit(1);
});
process.exitCode = await run();
// Sockets that are kept alive, and a FUSE module's handles, must not hold the process once the work is done.
process.exit();

async function command(): Promise<() => Promise<number>> {
  const { main } = await importEntry<typeof import('./cli/index.ts')>('cli/index');
  return () => main(argv);
}
