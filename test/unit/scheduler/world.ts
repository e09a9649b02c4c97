import { join } from 'node:path';
import { marshalCredentials, Secret } from '../../../src/credentials/index.ts';
import { type ContainerRow, isId, type NewContainer } from '../../../src/database/index.ts';
import { LogStore } from '../../../src/logs/index.ts';
import { createLogger } from '../../../src/observability/index.ts';
import { ChangeSignals } from '../../../src/protocol/index.ts';
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
  const image = repositories.images.register(newImage('private', { credential })).image;
  const publicImage = repositories.images.register(newImage('public')).image;

  const register = async (name = 'worker-1') => {
    const { worker_id } = await scheduler.register({
      name,
      protocol: 1,
      version: 'test',
      public_key: Buffer.alloc(32, 1).toString('base64'),
      slots: 4,
      labels: {},
    });
    return worker_id;
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
    secret,
    repositories,
    register,
    queue,
    row,
    start,
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  };
}
