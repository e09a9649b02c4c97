import initial from '../../migrations/0001_initial.sql' with { type: 'text' };
import endingsAndWorkers from '../../migrations/0002_endings_and_workers.sql' with { type: 'text' };
import indexOrigin from '../../migrations/0003_index_origin.sql' with { type: 'text' };
import tokenSeals from '../../migrations/0004_token_seals.sql' with { type: 'text' };
import containerEvents from '../../migrations/0005_container_events.sql' with { type: 'text' };
import traces from '../../migrations/0006_traces.sql' with { type: 'text' };
import workerIdentities from '../../migrations/0007_worker_identities.sql' with { type: 'text' };
import mountedImages from '../../migrations/0008_mounted_images.sql' with { type: 'text' };

export interface Migration {
  /** The number that its file's name starts with; they run in this order, without gaps. */
  readonly version: number;
  readonly name: string;
  readonly sql: string;
}

/** All migrations, oldest first, embedded in the executable. A file that was released is never changed. */
export const MIGRATIONS: readonly Migration[] = [
  { version: 1, name: '0001_initial', sql: initial },
  { version: 2, name: '0002_endings_and_workers', sql: endingsAndWorkers },
  { version: 3, name: '0003_index_origin', sql: indexOrigin },
  { version: 4, name: '0004_token_seals', sql: tokenSeals },
  { version: 5, name: '0005_container_events', sql: containerEvents },
  { version: 6, name: '0006_traces', sql: traces },
  { version: 7, name: '0007_worker_identities', sql: workerIdentities },
  { version: 8, name: '0008_mounted_images', sql: mountedImages },
];
