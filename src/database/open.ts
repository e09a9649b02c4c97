import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { AuditRepository } from './audit-log.ts';
import { Connection } from './connection.ts';
import { ContainerEventRepository } from './container-events.ts';
import { ContainerRepository } from './containers.ts';
import { DatabaseError } from './errors.ts';
import { createPrivateFile, prepareDataDirectory } from './files.ts';
import { createIdentifierSource, type IdentifierSource, type WorkspaceId } from './identifiers.ts';
import { ImageRepository, indexDigestsInUse } from './images.ts';
import { KekRepository } from './keks.ts';
import { migrate } from './migrate.ts';
import { MIGRATIONS, type Migration } from './migrations.ts';
import { MountedImageRepository } from './mounted-images.ts';
import { QueueRepository } from './queue.ts';
import { Columns } from './rows.ts';
import { SecretRepository } from './secrets.ts';
import { SettingRepository } from './settings.ts';
import { TokenRepository } from './tokens.ts';
import { TraceRepository } from './traces.ts';
import { WorkerRepository } from './workers.ts';
import { WorkspaceRepository } from './workspaces.ts';

export const DATABASE_FILE = 'imgcred.db';
/** How long a statement waits for another connection's lock, ms. */
export const BUSY_TIMEOUT_MS = 5_000;
const CHECKPOINT_SOON_MS = 500;

export interface DatabaseOptions {
  /** How long a statement waits for another process's lock, ms; `BUSY_TIMEOUT_MS` unless told. */
  readonly busyTimeoutMs?: number;
  readonly now?: () => number;
  readonly random?: (bytes: Uint8Array) => Uint8Array;
  readonly migrations?: readonly Migration[];
}

/** What belongs to one workspace: no query made through it can see another one's rows. */
export interface WorkspaceDatabase {
  readonly id: WorkspaceId;
  readonly images: ImageRepository;
  readonly containers: ContainerRepository;
  readonly events: ContainerEventRepository;
  readonly secrets: SecretRepository;
  readonly traces: TraceRepository;
}

/**
 * Opens `<dataDirectory>/imgcred.db` (made 0600 where it is missing) and brings its schema up to date. Take
 * `lockDataDirectory` first where the process is a server.
 *
 * @throws DatabaseError DATA_DIR when the directory can't be used; DATABASE when the file is damaged, is not a
 * database, or was written by a newer imgcred.
 */
export function openDatabase(dataDirectory: string, options: DatabaseOptions = {}): Database {
  prepareDataDirectory(dataDirectory);
  const path = join(realpathSync(dataDirectory), DATABASE_FILE);
  createPrivateFile(path);
  const now = options.now ?? Date.now;
  const connection = new Connection(path);
  try {
    connection.script(`PRAGMA busy_timeout = ${options.busyTimeoutMs ?? BUSY_TIMEOUT_MS}`);
    connection.script('PRAGMA journal_mode = WAL');
    // An answer that was given must survive a power cut.
    connection.script('PRAGMA synchronous = FULL');
    connection.script('PRAGMA foreign_keys = ON');
    // What is deleted is overwritten with zeros, and temporary tables and sorters never reach a disk.
    connection.script('PRAGMA secure_delete = ON');
    connection.script('PRAGMA temp_store = MEMORY');
    connection.script('PRAGMA trusted_schema = OFF');
    checkIntegrity(connection);
    connection.expectSchema(migrate(connection, options.migrations ?? MIGRATIONS, now));
    // One that was killed may have left in the log what was deleted.
    emptyLog(connection);
  } catch (thrown) {
    connection.close();
    throw thrown;
  }
  return new Database(connection, createIdentifierSource(now, options.random), now);
}

const columns = new Columns('pragma');

function checkIntegrity(connection: Connection): void {
  const verdict = connection.get('PRAGMA quick_check(1)', {}, (row) => columns.text(row, 'quick_check'));
  if (verdict === 'ok') return;
  throw new DatabaseError('DATABASE', `${connection.path} is damaged: ${verdict?.split('\n').join(' ')}`, {
    hint: 'restore a backup with `imgcred restore`, or move the file away to start anew',
  });
}

/** Answers false where a reader or writer is in the way: nobody waits here for it to end. */
function emptyLog(connection: Connection): boolean {
  const waits = connection.one('PRAGMA busy_timeout', {}, (row) => columns.integer(row, 'timeout'));
  connection.script('PRAGMA busy_timeout = 0');
  try {
    return connection.one('PRAGMA wal_checkpoint(TRUNCATE)', {}, (row) => !columns.boolean(row, 'busy'));
  } finally {
    connection.script(`PRAGMA busy_timeout = ${waits}`);
  }
}

/** The database of one data directory. */
export class Database implements Disposable {
  readonly path: string;
  readonly workspaces: WorkspaceRepository;
  readonly keks: KekRepository;
  readonly workers: WorkerRepository;
  readonly tokens: TokenRepository;
  readonly audit: AuditRepository;
  readonly queue: QueueRepository;
  readonly mountedImages: MountedImageRepository;
  readonly settings: SettingRepository;
  readonly #connection: Connection;
  readonly #newId: IdentifierSource;
  readonly #now: () => number;
  readonly #byWorkspace = new Map<WorkspaceId, WorkspaceDatabase>();
  #checkpointing: NodeJS.Timeout | undefined;

  constructor(connection: Connection, newId: IdentifierSource, now: () => number) {
    this.path = connection.path;
    this.#connection = connection;
    this.#newId = newId;
    this.#now = now;
    this.workspaces = new WorkspaceRepository(connection, newId, now);
    this.keks = new KekRepository(connection, now);
    this.workers = new WorkerRepository(connection, newId, now);
    this.tokens = new TokenRepository(connection, newId, now);
    this.audit = new AuditRepository(connection, now);
    this.queue = new QueueRepository(connection, now);
    this.mountedImages = new MountedImageRepository(connection);
    this.settings = new SettingRepository(connection, now);
  }

  /** The repositories of one workspace. */
  workspace(id: WorkspaceId): WorkspaceDatabase {
    const known = this.#byWorkspace.get(id);
    if (known !== undefined) return known;
    const made: WorkspaceDatabase = {
      id,
      images: new ImageRepository(this.#connection, id, this.#newId, this.#now),
      containers: new ContainerRepository(this.#connection, id, this.#newId, this.#now),
      events: new ContainerEventRepository(this.#connection, id),
      secrets: new SecretRepository(this.#connection, id, this.#newId, this.#now),
      traces: new TraceRepository(this.#connection, id, this.#now),
    };
    this.#byWorkspace.set(id, made);
    return made;
  }

  /**
   * Runs `work` (which must not wait) in one transaction: all of its changes are made, or none. Changes to many
   * rows cost one write to disk together.
   */
  transaction<T>(work: () => T): T {
    return this.#connection.transaction(work);
  }

  /** The digests of all image indexes that any workspace uses: what must not be deleted from disk. */
  indexDigestsInUse(): Set<string> {
    return indexDigestsInUse(this.#connection);
  }

  /**
   * Moves the write-ahead log into the database and empties it, so that what was deleted is in neither. While somebody
   * reads an older state (a backup that is being written) that can't be: it is tried again until it is done.
   */
  checkpoint(): void {
    clearTimeout(this.#checkpointing);
    this.#checkpointing = undefined;
    if (!emptyLog(this.#connection)) this.checkpointSoon();
  }

  /** The same in a moment, together for all that asks for it until then: each costs several writes to disk. */
  checkpointSoon(): void {
    if (this.#checkpointing !== undefined) return;
    this.#checkpointing = setTimeout(() => this.checkpoint(), CHECKPOINT_SOON_MS);
    this.#checkpointing.unref();
  }

  close(): void {
    clearTimeout(this.#checkpointing);
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
