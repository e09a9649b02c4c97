import { ContainerInputError, NotInImageError } from './errors.ts';

/** Who a container's process is: numbers as the kernel takes them. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  /** Home directory by the image's passwd, `/` for a user that is not in it. */
  readonly home: string;
}

export interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

export interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

// The kernel's (uid_t)-1 means "no change"; runtimes stop at 2^31 - 1, as signed numbers pass through them.
const MAX_ID = 2 ** 31 - 1;

/** Parses passwd(5). Lines that are comments, short or without numbers are skipped, as libc does. */
export function parsePasswd(text: string): PasswdEntry[] {
  const entries: PasswdEntry[] = [];
  for (const fields of records(text)) {
    const [name, , uid, gid, , home] = fields;
    const uidNumber = parseId(uid);
    const gidNumber = parseId(gid);
    if (name === undefined || name === '' || uidNumber === undefined || gidNumber === undefined) continue;
    entries.push({
      name,
      uid: uidNumber,
      gid: gidNumber,
      home: home === undefined || home === '' ? '/' : home,
    });
  }
  return entries;
}

/** Parses group(5), with the same leniency as {@link parsePasswd}. */
export function parseGroup(text: string): GroupEntry[] {
  const entries: GroupEntry[] = [];
  for (const [name, , gid, members] of records(text)) {
    const number = parseId(gid);
    if (name === undefined || name === '' || number === undefined) continue;
    entries.push({
      name,
      gid: number,
      members: (members ?? '').split(',').filter((member) => member !== ''),
    });
  }
  return entries;
}

export interface UserDatabase {
  /** Content of the image's /etc/passwd; empty where it has none. */
  readonly passwd: string;
  /** Content of the image's /etc/group; empty where it has none. */
  readonly group: string;
}

/**
 * Resolves `user[:group]`, names or numbers, in the image's own files. A number is always an id, even where a
 * name looks like it. Without a group, the user's own group and those that list it as a member are taken.
 * @throws ContainerInputError for a name that the image does not know
 * @see OCI image-spec, config.md, `User`
 */
export function resolveUser(
  user: string,
  database: UserDatabase,
  additionalGroups: readonly string[] = [],
): Identity {
  const colon = user.indexOf(':');
  const userPart = colon === -1 ? user : user.slice(0, colon);
  const groupPart = colon === -1 ? '' : user.slice(colon + 1);
  const groups = parseGroup(database.group);
  const wantedUid = userPart === '' ? 0 : parseId(userPart);
  const entry = parsePasswd(database.passwd).find((candidate) =>
    wantedUid === undefined ? candidate.name === userPart : candidate.uid === wantedUid,
  );
  const uid = entry?.uid ?? wantedUid;
  if (uid === undefined) {
    throw new NotInImageError(`user '${userPart}' is not in the image's /etc/passwd`, {
      hint: 'name a user of the image, or give a number',
    });
  }
  const gid = groupPart === '' ? (entry?.gid ?? 0) : resolveGroup(groupPart, groups);
  const implicit =
    groupPart === '' && entry !== undefined
      ? groups.filter((group) => group.members.includes(entry.name)).map((group) => group.gid)
      : [];
  const explicit = additionalGroups.map((group) => resolveGroup(group, groups));
  return {
    uid: inRange(uid, userPart),
    gid: inRange(gid, groupPart),
    additionalGids: [...new Set([...implicit, ...explicit])],
    home: entry?.home ?? '/',
  };
}

/**
 * The supplementary groups of a process: its own one is among them, as under podman. Else a program that can change its
 * group would get past a file's permissions that keep that group out (CVE-2022-2989). Root with root's group gets past
 * them anyway, and in a user name space that it shares with nobody may set no groups at all.
 */
export function supplementaryGroups({ uid, gid, additionalGids }: Identity): readonly number[] {
  return uid === 0 && gid === 0 ? additionalGids : [...new Set([gid, ...additionalGids])];
}

function resolveGroup(group: string, groups: readonly GroupEntry[]): number {
  const number = parseId(group);
  if (number !== undefined) return inRange(number, group);
  const entry = groups.find((candidate) => candidate.name === group);
  if (entry === undefined) {
    throw new NotInImageError(`group '${group}' is not in the image's /etc/group`, {
      hint: 'name a group of the image, or give a number',
    });
  }
  return entry.gid;
}

function inRange(id: number, shown: string): number {
  if (id <= MAX_ID) return id;
  throw new ContainerInputError(`user or group id '${shown}' is above ${MAX_ID}`);
}

function parseId(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
}

function* records(text: string): Generator<string[]> {
  for (const line of text.split('\n')) {
    const trimmed = line.trim();
    if (trimmed !== '' && !trimmed.startsWith('#')) yield trimmed.split(':');
  }
}
