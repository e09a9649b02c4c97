import { expect } from 'bun:test';
import { prepareDataDirectory } from '../../../src/config/index.ts';
import { marshalCredentials, Secret } from '../../../src/credentials/index.ts';
import type { ContainerRow, Role, WorkspaceId } from '../../../src/database/index.ts';
import {
  administrationRoutes,
  containerRoutes,
  createGateway,
  ImageRegistration,
  imageRoutes,
  LayerIndexes,
  type Route,
  secretRoutes,
} from '../../../src/gateway/index.ts';
import { IndexThreads } from '../../../src/index/index.ts';
import { LogStore } from '../../../src/logs/index.ts';
import { createLogger } from '../../../src/observability/index.ts';
import { ChangeSignals, PROTOCOL_VERSION } from '../../../src/protocol/index.ts';
import { RegistryClient, type RegistryClientOptions } from '../../../src/registry/index.ts';
import { Scheduler, workerRoutes } from '../../../src/scheduler/index.ts';
import { newImage } from '../database/world.ts';
import { ME, openSecretWorld } from '../secrets/world.ts';

export const PASSWORD = 'hunter2-correct-horse';
export const REGISTRY = 'registry.test';

export const LEASE_MS = 30_000;

/** Who sends a request: nobody, a user of the machine by the socket, or the holder of a token. */
export type Sender = 'nobody' | 'socket' | Secret<string>;

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly json: Record<string, never> & { [key: string]: unknown };
}

/** A gateway on a real database with real secrets, called without a network between. */
export async function openGatewayWorld(registry: RegistryClientOptions = {}, work = new IndexThreads()) {
  const world = await openSecretWorld();
  const { database, secrets, directory } = world;
  const lines: string[] = [];
  const logger = createLogger({ level: 'debug', write: (line) => lines.push(line) });
  const signals = new ChangeSignals();
  const layout = prepareDataDirectory(directory);
  const logs = new LogStore(layout.logs);
  const indexDirectory = layout.indexes;
  const scheduler = new Scheduler({
    database,
    secrets: secrets.store,
    tokens: secrets.tokens,
    audit: secrets.audit,
    logs,
    signals,
    indexDirectory,
    logger,
    now: () => world.clock.now,
    leaseMs: LEASE_MS,
  });
  const registration = new ImageRegistration({
    database,
    secrets: secrets.store,
    credentials: secrets.imageCredentials,
    layers: new LayerIndexes({ directory: layout.layerIndexes, parallel: 2, work, logger }),
    indexDirectory,
    connect: (host, provider) => new RegistryClient(host, provider, registry),
    logger,
  });
  const routes: Route[] = [
    ...imageRoutes(registration),
    ...containerRoutes({ logs, signals }),
    ...secretRoutes({ store: secrets.store, verify: registration.verify, onChange: () => {} }),
    ...administrationRoutes(database, secrets, logs, LEASE_MS, () => world.clock.now),
  ];
  const app = createGateway({
    database,
    tokens: secrets.tokens,
    routes,
    logger,
    mounted: [{ prefix: '/v1/worker', app: workerRoutes(scheduler) }],
  });

  const token = (role: Role, workspaceId?: WorkspaceId): Secret<string> =>
    secrets.tokens.create({ name: `${role} ${workspaceId ?? 'any'}`.slice(0, 60), role, workspaceId }, ME)
      .token;

  const request = (
    sender: Sender,
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
    signal?: AbortSignal,
  ): Promise<Response> => {
    const authorization: Record<string, string> =
      typeof sender === 'string' ? {} : { authorization: `Bearer ${sender.reveal()}` };
    const text = typeof body === 'string' ? body : body === undefined ? undefined : JSON.stringify(body);
    const init = {
      method,
      headers: { ...authorization, ...headers },
      ...(text === undefined ? {} : { body: text }),
      ...(signal === undefined ? {} : { signal }),
    };
    const local = sender === 'socket';
    return Promise.resolve(
      app.fetch(new Request(`http://gateway${path}`, init), {
        local,
        origin: local ? 'unix socket' : '192.0.2.1',
      }),
    );
  };
  const call = async (...given: Parameters<typeof request>): Promise<Answer> => {
    const response = await request(...given);
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.startsWith('application/json') === true;
    return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : {} };
  };

  /** A workspace with an image behind a secret, a secret of its own, and a queued container. */
  const furnish = async (id: WorkspaceId) => {
    const { images, containers } = database.workspace(id);
    const login = { USERNAME: 'me', PASSWORD };
    const value = new Secret(marshalCredentials(REGISTRY, 'basic', login));
    const name = 'oci-registry-registry-test';
    const secret = await secrets.store.create(
      id,
      { name, kind: 'registry', registry: REGISTRY, value },
      ME,
      true,
    );
    await secrets.store.create(id, { name: 'api-key', value: new Secret(PASSWORD) }, ME);
    const credential = { secretName: secret.name, secretId: secret.id };
    const wanted = newImage('app', { credential, indexDigest: 'e1'.repeat(32) });
    const image = images.register({
      ...wanted,
      indexSeal: await secrets.store.sealImage(id, wanted),
    }).image;
    const queue = (): ContainerRow =>
      containers.create({
        imageId: image.id,
        imageReference: image.reference,
        name: undefined,
        spec: { env: {}, overrides: {} },
      }).container;
    return { id, image, secret, container: queue(), queue };
  };
  /** Registers a worker that holds nothing. */
  const enrol = async (name: string): Promise<string> => {
    const description = {
      name,
      instance: `instance-of-${name}`.padEnd(16, '-'),
      protocol: PROTOCOL_VERSION,
      version: 'test',
      slots: 4,
      cpus: 4,
      memory_bytes: 2 ** 30,
      labels: { zone: 'a' },
      held: [],
    };
    return (await scheduler.register(description)).worker_id;
  };
  return {
    ...world,
    enrol,
    lines,
    signals,
    logs,
    scheduler,
    registration,
    routes,
    app,
    token,
    request,
    call,
    furnish,
  };
}
export type GatewayWorld = Awaited<ReturnType<typeof openGatewayWorld>>;

/** Checks that an answer is an error as every error is worded: JSON, a code, one line, no stack, no secret. */
export function expectError(
  answer: Answer,
  status: number,
  code?: string,
): { message: string; hint?: string } {
  expect(`${answer.status} ${answer.text.slice(0, 300)}`).toStartWith(`${status} {"error":`);
  expect(answer.headers.get('content-type')).toBe('application/json');
  expect(Object.keys(answer.json)).toEqual(['error']);
  const error = answer.json.error as unknown as { code: string; message: string; hint?: string };
  expect(Object.keys(error).filter((key) => !['code', 'message', 'hint'].includes(key))).toEqual([]);
  if (code !== undefined) expect(error.code).toBe(code);
  expect(error.message).not.toContain('\n');
  expect(answer.text).not.toMatch(/\.ts:\d|\bat [\w.]+ \(/);
  expect(answer.text).not.toContain(PASSWORD);
  return error;
}
