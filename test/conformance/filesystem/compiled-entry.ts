/**
 * What the compiled executable does in `compiled.test.ts`: mounts the suite's tree, lets programs look at it, and
 * unmounts. Programs of their own, since this process must not.
 */
import { MemoryFileSystem } from '../../fixtures/memory-file-system.ts';
import { output } from './commands.ts';
import { DRIVERS } from './drivers.ts';
import { MEMORY } from './sources.ts';
import { populate } from './tree.ts';

const [driverName, mountpoint = ''] = process.argv.slice(2);
const driver = DRIVERS.find(({ name }) => name === driverName);
if (driver === undefined) throw new Error(`no driver ${driverName}`);

const fs = new MemoryFileSystem();
populate(fs, { programs: {}, sparseSize: MEMORY.sparseSize, remote: (_name, content) => content });
const mounted = await driver.mount(fs, mountpoint);
try {
  process.stdout.write(await output(['cat', `${mountpoint}/plain`]));
  process.stdout.write(await output(['cksum', `${mountpoint}/pattern`]));
} finally {
  await mounted.unmount();
}
console.log('unmounted');
