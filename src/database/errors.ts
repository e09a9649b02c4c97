import { type ErrorCode, ImgcredError, type ImgcredErrorOptions, systemErrorCode } from '../errors/index.ts';

/** What the database and the data directory can fail with. */
export class DatabaseError extends ImgcredError {}

export function notFound(what: string, name: string, hint?: string): DatabaseError {
  return new DatabaseError('NOT_FOUND', `no ${what} ${JSON.stringify(name)}`, { hint });
}

export function conflict(message: string, options: ImgcredErrorOptions = {}): DatabaseError {
  return new DatabaseError('CONFLICT', message, options);
}

/** A row that the schema should have made impossible. */
export function badRow(table: string, column: string, expected: string): DatabaseError {
  return new DatabaseError(
    'DATABASE',
    `the database holds a bad row: ${table}.${column} is not ${expected}`,
    {
      hint: 'restore a backup with `imgcred restore`',
    },
  );
}

/** What a statement meets when the database has another schema than the one that it was written for. */
const OF_ANOTHER_SCHEMA = /^SQLITE_(ERROR|CONSTRAINT_(NOTNULL|CHECK))$/;

/** Whether a statement may have failed because of the database's schema, and nothing else. */
export function mayBeOfAnotherSchema(error: unknown): boolean {
  if (!(error instanceof DatabaseError) || error.code !== 'DATABASE') return false;
  return error.cause === undefined || OF_ANOTHER_SCHEMA.test(systemErrorCode(error.cause) ?? '');
}

/** A newer imgcred, in another process, has brought the schema forward since this one opened the database. */
export function broughtForward(path: string, found: number, known: number, cause: unknown): DatabaseError {
  return new DatabaseError(
    'DATABASE',
    `a newer imgcred has brought ${path} forward (schema ${found}, this process knows ${known})`,
    { hint: 'start this process again, with the newer version', cause },
  );
}

const MEANINGS: readonly (readonly [pattern: RegExp, code: ErrorCode, message: string, hint: string])[] = [
  [
    /^SQLITE_(CORRUPT|NOTADB)/,
    'DATABASE',
    'is damaged or is not a database',
    'restore a backup with `imgcred restore`, or move the file away to start anew',
  ],
  [/^SQLITE_FULL/, 'DATABASE', 'cannot grow: the disk is full', 'free some space on that file system'],
  [
    /^SQLITE_(READONLY|PERM)/,
    'DATA_DIR',
    'cannot be written',
    'make it writable for the user that runs imgcred',
  ],
  [
    /^SQLITE_CANTOPEN/,
    'DATA_DIR',
    'cannot be opened',
    'check that the directory exists and is writable for the user that runs imgcred',
  ],
  [
    /^SQLITE_(BUSY|LOCKED)/,
    'DATABASE',
    'is locked by another process',
    'wait for it to finish, and try again',
  ],
  [/^SQLITE_IOERR/, 'DATABASE', 'cannot be read or written: input/output error', 'check the disk'],
];

/**
 * An error of SQLite as one of ours, in one line. What SQLite says about a constraint names a table and its
 * columns, never a value, so it may be shown.
 */
export function fromSqlite(thrown: unknown, path: string): unknown {
  if (thrown instanceof ImgcredError) return thrown;
  const code = systemErrorCode(thrown);
  if (code === undefined || !code.startsWith('SQLITE_') || !(thrown instanceof Error)) return thrown;
  for (const [pattern, ours, message, hint] of MEANINGS) {
    if (pattern.test(code)) return new DatabaseError(ours, `${path} ${message}`, { hint, cause: thrown });
  }
  if (code.startsWith('SQLITE_CONSTRAINT')) {
    return new DatabaseError('DATABASE', `${path} refuses a change: ${thrown.message}`, { cause: thrown });
  }
  return new DatabaseError('DATABASE', `${path}: ${thrown.message} (${code})`, { cause: thrown });
}

/** Whether `thrown` says that a UNIQUE constraint on these columns (`table.column`) refused a row. */
export function violatesUnique(thrown: unknown, columns: string): boolean {
  const cause = thrown instanceof DatabaseError ? thrown.cause : thrown;
  return (
    systemErrorCode(cause) === 'SQLITE_CONSTRAINT_UNIQUE' &&
    cause instanceof Error &&
    cause.message.includes(columns)
  );
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'its file system is read-only',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  ENOTDIR: 'a part of its path is not a directory',
  EEXIST: 'it is not a directory',
  ENOENT: 'there is no such directory, and it cannot be made',
};

/** What a failed system call on a path of ours means. */
export function unusable(path: string, thrown: unknown): DatabaseError {
  const reason = REASONS[systemErrorCode(thrown) ?? ''] ?? systemErrorCode(thrown) ?? 'unknown reason';
  return new DatabaseError('DATA_DIR', `${path} cannot be used: ${reason}`, {
    hint: 'choose another place (--data-dir), or make this one writable for the user that runs imgcred',
    cause: thrown,
  });
}
