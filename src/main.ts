import { main } from './cli/index.ts';
import { runInternal } from './cli/internal.ts';

const argv = process.argv.slice(2);
process.exitCode = (await runInternal(argv)) ?? (await main(argv));
// Sockets that are kept alive, and a FUSE module's handles, must not hold the process once the work is done.
process.exit();
