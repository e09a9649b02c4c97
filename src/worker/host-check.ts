import type { Config } from '../config/index.ts';
import { chooseDriver } from '../mounts/index.ts';
import { findRuntime } from './containers/index.ts';

/**
 * Makes sure that a worker could run containers here, without starting one.
 *
 * @throws ImgcredError RUNTIME_MISSING, FUSE_UNAVAILABLE
 */
export async function checkHost(config: Pick<Config, 'runtime' | 'fuse_driver'>): Promise<void> {
  await findRuntime(config.runtime);
  chooseDriver(config.fuse_driver);
}
