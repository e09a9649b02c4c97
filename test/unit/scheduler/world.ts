import { join } from 'node:path';
import { marshalCredentials, Secret } from '../../../src/credentials/index.ts';
import { type ContainerRow, isId, type NewContainer, type NewImage } from '../../../src/database/index.ts';
import { LogStore } from '../../../src/logs/index.ts';
import { createLogger } from '../../../src/observability/index.ts';
import { ChangeSignals, PROTOCOL_VERSION, type WorkerDescription } from '../../../src/protocol/index.ts';
import { Scheduler } from '../../../src/scheduler/index.ts';
import { newImage } from '../database/world.ts';
import { ME, openSecretWorld } from '../secrets/world.ts';

export const LEASE_MS = 30_000;
export const REGISTRY = 'registry.test';
export const SECRET_NAME = 'oci-registry-registry-test';

/** The stored form of a login with this password. */
export function loginOf(password: string): Secret<string> {
  const login = { USERNAME: 'me', PASSWORD: password };
  return new Secret(marshalCredentials(REGISTRY, 'basic', login));
}

/** What a worker of four cores says of itself. */
export function describeWorker(name: string, changes: Partial<WorkerDescription> = {}): WorkerDescription {
  return {
    name,
    instance: `data-directory-of-${name}`,
    protocol: PROTOCOL_VERSION,
    version: 'test',
    slots: 4,
    cpus: 4,
    memory_bytes: 2 ** 30,
    labels: {},
    held: [],
    ...changes,
  };
}

/** A scheduler on a real database with real secrets, and a clock that moves only when it is told to. */
export async function openSchedulerWorld() {
  const world = await openSecretWorld();
  const { database, secrets, workspace, clock, directory } = world;
  const lines: string[] = [];
  const logger = createLogger({ level: 'debug', write: (line) => lines.push(line) });
  const signals = new ChangeSignals();
  const logs = new LogStore(join(directory, 'logs'));
  const scheduler = new Scheduler({
    database,
    secrets: secrets.store,
    tokens: secrets.tokens,
    audit: secrets.audit,
    logs,
    signals,
    indexDirectory: join(directory, 'indexes'),
    logger,
    now: () => clock.now,
    leaseMs: LEASE_MS,
  });
  const repositories = database.workspace(workspace);
  const secret = await secrets.store.create(
    workspace,
    { name: SECRET_NAME, kind: 'registry', registry: REGISTRY, value: loginOf('first') },
    ME,
    true,
  );
  const credential = { secretName: secret.name, secretId: secret.id };
  const registerImage = async (wanted: NewImage) =>
    repositories.images.register({ ...wanted, indexSeal: await secrets.store.sealImage(workspace, wanted) })
      .image;
  const image = await registerImage(newImage('private', { credential }));
  const publicImage = await registerImage(newImage('public'));

  const register = async (name = 'worker-1', changes: Partial<WorkerDescription> = {}) => {
    const { worker_id } = await scheduler.register({ ...describeWorker(name), ...changes });
    return worker_id;
  };
  /** A heartbeat of a worker that has all that the scheduler believes it to have. */
  const heartbeat = (workerId: string, layers: string[] = []) => {
    const { id } = database.workers.get(workerId);
    const held = database.queue.heldBy(id).map((row) => ({ container_id: row.id, attempt: row.attempt }));
    return scheduler.heartbeat(workerId, { held, layers });
  };
  const queue = (changes: Partial<NewContainer> = {}): ContainerRow =>
    repositories.containers.create({
      imageId: image.id,
      imageReference: image.reference,
      spec: { env: { MODE: 'test' }, overrides: {} },
      ...changes,
    }).container;
  const row = (id: string): ContainerRow => {
    const found = isId('ctr', id) ? database.queue.find(id) : undefined;
    if (found === undefined) throw new Error(`${id} is gone`);
    return found;
  };
  /** Claims the next request and says that it runs. */
  const start = async (workerId: string) => {
    const request = await scheduler.nextRequest(workerId, 0);
    if (request === null) throw new Error('there is nothing to run');
    const { container_id, attempt } = request;
    await scheduler.report(workerId, container_id, attempt, { kind: 'preparing' });
    await scheduler.report(workerId, container_id, attempt, { kind: 'running' });
    return request;
  };
  return {
    ...world,
    scheduler,
    signals,
    logs,
    lines,
    image,
    publicImage,
    registerImage,
    secret,
    repositories,
    register,
    heartbeat,
    queue,
    row,
    start,
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  };
}
