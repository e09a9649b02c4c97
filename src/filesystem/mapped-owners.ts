import type { Attributes } from '../index/index.ts';
import { isMapped, readUserNamespace, type UserNamespace } from './user-namespace.ts';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_ISUID = 0o4000;
const S_ISGID = 0o2000;
const ROOT = 0;

/**
 * What changes a file's attributes so that its owner and group exist in the user name space. The kernel lets nobody
 * write to a file of an id that it can't name there, nor copy it up; so root gets those, as podman's
 * `ignore_chown_errors` has it. A program of theirs is no set-id program then: it would lend root's rights.
 */
export function mappedOwners(
  namespace: Pick<UserNamespace, 'initial' | 'uids' | 'gids'> = readUserNamespace(),
): (attributes: Attributes) => Attributes {
  if (namespace.initial) return (attributes) => attributes;
  const { uids, gids } = namespace;
  return (attributes) => {
    const ownerKnown = isMapped(uids, attributes.uid);
    const groupKnown = isMapped(gids, attributes.gid);
    if (ownerKnown && groupKnown) return attributes;
    const isDirectory = (attributes.mode & S_IFMT) === S_IFDIR;
    const lost = isDirectory ? 0 : (ownerKnown ? 0 : S_ISUID) | (groupKnown ? 0 : S_ISGID);
    return {
      ...attributes,
      mode: attributes.mode & ~lost,
      uid: ownerKnown ? attributes.uid : ROOT,
      gid: groupKnown ? attributes.gid : ROOT,
    };
  };
}
