import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Database,
  type DatabaseOptions,
  type ImageRow,
  type NewImage,
  openDatabase,
  type WorkerRow,
  type WorkspaceId,
} from '../../../src/database/index.ts';

/** A directory that is deleted at the end of the scope. */
export function temporaryDirectory(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'imgcred-test-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** A database in a directory of its own, with a clock that moves only when it is told to. */
export function openWorld(options: DatabaseOptions = {}) {
  const directory = temporaryDirectory();
  const clock = { now: 1_700_000_000_000 };
  const database = openDatabase(directory.path, { now: () => clock.now, ...options });
  return {
    directory: directory.path,
    database,
    clock,
    [Symbol.dispose]: () => {
      database.close();
      directory[Symbol.dispose]();
    },
  };
}

/** A workspace with a key that opens nothing: enough where no secret is read. */
export function addWorkspace(database: Database, name: string): WorkspaceId {
  database.keks.activate('kek_test', new Uint8Array(16));
  const id = database.workspaces.newId();
  return database.workspaces.create({ id, name, kekId: 'kek_test', dek: new Uint8Array(1) }).id;
}

export function newImage(repository: string, changes: Partial<NewImage> = {}): NewImage {
  return {
    reference: `registry.test/${repository}:1`,
    registry: 'registry.test',
    repository,
    tag: '1',
    platform: 'linux/amd64',
    manifestDigest: `sha256:${'a'.repeat(64)}`,
    indexDigest: `sha256:${'b'.repeat(64)}`,
    config: { config: { Cmd: ['/bin/sh'] } },
    layers: [
      { digest: 'sha256:c', diffId: 'sha256:d', mediaType: 'application/x', size: 7, compression: 'gzip' },
    ],
    compressedBytes: 7,
    uncompressedBytes: 70,
    indexBytes: 3,
    fileCount: 2,
    credential: undefined,
    ...changes,
  };
}

export function addImage(database: Database, workspace: WorkspaceId, repository: string): ImageRow {
  return database.workspace(workspace).images.register(newImage(repository)).image;
}

export function addWorker(database: Database, name: string): WorkerRow {
  return database.workers.register({
    name,
    capacity: { slots: 4 },
    labels: { zone: 'a' },
    version: '0.1.0',
  });
}

/** Queues `count` requests of one image. */
export function addContainers(
  database: Database,
  workspace: WorkspaceId,
  image: ImageRow,
  count: number,
): void {
  const { containers } = database.workspace(workspace);
  database.transaction(() => {
    for (let i = 0; i < count; i++) {
      containers.create({ imageId: image.id, imageReference: image.reference, spec: { number: i } });
    }
  });
}

/** The error that `work` throws; fails where it throws none. */
export async function errorOf(work: () => unknown): Promise<Error> {
  try {
    await work();
  } catch (thrown) {
    if (thrown instanceof Error) return thrown;
  }
  throw new Error('nothing was thrown');
}
