import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { prepareDataDirectory } from '../../../src/config/index.ts';
import { ContentStore } from '../../../src/content/index.ts';
import type { CredentialProvider } from '../../../src/credentials/index.ts';
import {
  ImageRegistration,
  IndexPublication,
  KeptLayers,
  type KeptLayersOptions,
  LayerIndexes,
} from '../../../src/gateway/index.ts';
import { type ImageIndex, openImageIndex } from '../../../src/index/index.ts';
import { createLogger } from '../../../src/observability/index.ts';
import type { RegisterImage, RegisterProgress } from '../../../src/protocol/index.ts';
import { RegistryClient } from '../../../src/registry/index.ts';
import { ME, openSecretWorld } from '../../unit/secrets/world.ts';

export interface NodeOptions {
  readonly keep?: KeptLayersOptions;
  readonly cacheLimit?: number;
}

/** What registers images on one machine: a data directory, its keys, its layer tables, its cache. */
export async function openNode(options: NodeOptions = {}) {
  const world = await openSecretWorld();
  const { database, secrets, workspace } = world;
  const layout = prepareDataDirectory(world.directory);
  await mkdir(layout.cache, { recursive: true });
  const lines: string[] = [];
  const logger = createLogger({ level: 'debug', write: (line) => lines.push(line) });
  const openStore = () =>
    ContentStore.open(layout.cache, {
      ...(options.cacheLimit === undefined ? {} : { limitBytes: options.cacheLimit }),
    });
  const layers = new LayerIndexes({
    directory: layout.layerIndexes,
    parallel: 2,
    logger,
    kept: options.keep === undefined ? undefined : new KeptLayers(openStore, options.keep),
  });
  const connect = (host: string, provider: CredentialProvider) =>
    new RegistryClient(host, provider, { retry: { baseMs: 1, capMs: 2 } });
  const common = { database, secrets: secrets.store, layers, connect, logger };
  const registration = new ImageRegistration({
    ...common,
    credentials: secrets.imageCredentials,
    indexDirectory: layout.indexes,
  });
  const publication = new IndexPublication(common);
  return {
    ...world,
    layout,
    lines,
    openStore,
    layers,
    publication,
    registration,
    async register(
      request: RegisterImage,
      onProgress?: (line: RegisterProgress) => void,
      signal?: AbortSignal,
    ) {
      return registration.register(workspace, request, ME, onProgress, signal);
    },
    async index(digest: string): Promise<ImageIndex> {
      const bytes = await Bun.file(join(layout.indexes, digest)).bytes();
      return openImageIndex(bytes);
    },
    /** The layers whose tables are on disk. */
    knownLayers: () => readdir(layout.layerIndexes),
    [Symbol.asyncDispose]: async () => {
      await layers.close();
      await world[Symbol.asyncDispose]();
    },
  };
}
