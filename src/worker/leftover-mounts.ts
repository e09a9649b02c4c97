import { readMountTable, unmount } from '../filesystem/index.ts';
import type { Logger } from '../observability/index.ts';

/** Takes a mount out of the tree, whoever uses it; one that is not there is none the worse. */
export function detach(mountpoint: string, logger: Logger): void {
  try {
    unmount(mountpoint, { detach: true });
  } catch (thrown) {
    logger.debug('nothing to detach', { mountpoint, error: String(thrown) });
  }
}

/** Where something is mounted below `directory`, the last first, but for what is at `kept`. */
export function leftoversBelow(directory: string, kept: ReadonlySet<string>): string[] {
  const targets = readMountTable().map(({ target }) => target);
  return targets.reverse().filter((target) => target.startsWith(`${directory}/`) && !kept.has(target));
}

/** Takes away the mounts below `directory` whose server is gone: all but those at `kept`. Nobody can serve them again. */
export function detachLeftovers(directory: string, kept: ReadonlySet<string>, logger: Logger): void {
  for (const target of leftoversBelow(directory, kept)) {
    logger.warn('removing a mount whose server is gone', { mountpoint: target });
    detach(target, logger);
  }
}
