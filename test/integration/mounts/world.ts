import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readMountTable, unmount } from '../../../src/filesystem/index.ts';
import { buildImageIndex, indexLayer } from '../../../src/index/index.ts';
import {
  type FoundMountServer,
  findOrStartMountServer,
  type MountRequest,
  type MountServerSettings,
} from '../../../src/mounts/index.ts';
import { createLogger } from '../../../src/observability/index.ts';
import { layerOf } from '../../fixtures/images/index.ts';
import {
  type FaultProxy,
  type PushedImage,
  Pusher,
  type RegistryFixture,
  startFaultProxy,
  startRegistry,
} from '../../fixtures/registry/index.ts';

const USER = 'reader';
const PASSWORD = 'open-sesame-42';

/** Mount servers as a worker starts them, a registry behind a proxy, and an image of one layer in it. */
export class MountWorld implements AsyncDisposable {
  readonly #pids = new Set<number>();
  readonly lines: Record<string, unknown>[] = [];

  private constructor(
    readonly directory: string,
    readonly registry: RegistryFixture,
    readonly proxy: FaultProxy,
    readonly image: PushedImage,
  ) {}

  static async make(): Promise<MountWorld> {
    const registry = await startRegistry({ htpasswd: { [USER]: PASSWORD } });
    const proxy = await startFaultProxy(registry.url);
    const layers = [await layerOf('echo hello > greeting; head -c 8000000 /dev/urandom > ballast')];
    const image = await new Pusher(registry, USER, PASSWORD).image({ layers });
    const directory = await mkdtemp(join(tmpdir(), 'imgcred-mounts-'));
    const [layer] = image.layers;
    if (layer === undefined) throw new Error('no layer');
    const { digest, diffId, size, bytes } = layer;
    const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
    const index = await indexLayer(
      { digest, diffId, size, mediaType, compression: 'gzip' },
      (async function* () {
        yield bytes;
      })(),
    );
    await writeFile(join(directory, 'index'), buildImageIndex([index]));
    return new MountWorld(directory, registry, proxy, image);
  }

  settings(changes: Partial<MountServerSettings> = {}): MountServerSettings {
    return {
      socket: join(this.directory, 'mounts.sock'),
      cache_directory: join(this.directory, 'cache'),
      state_directory: join(this.directory, 'state'),
      fuse_driver: 'kernel',
      read_timeout_ms: 30_000,
      prefetch: 'none',
      insecure_registries: [],
      registry_ca: [],
      registry_mirrors: [],
      log_level: 'info',
      ...changes,
    };
  }

  /** Finds or starts the mount server, as a worker does. */
  async server(
    changes: Partial<MountServerSettings> = {},
    options: { readonly keepBusy?: boolean } = {},
  ): Promise<FoundMountServer> {
    const logger = createLogger({ level: 'info', write: (line) => this.lines.push(JSON.parse(line)) });
    const found = await findOrStartMountServer(
      this.settings(changes),
      join(this.directory, 'mount-server.log'),
      logger,
      options,
    );
    this.#pids.add(found.pid);
    return found;
  }

  /** Asks for the image at mount point `id`. */
  request(id: string, password = PASSWORD, changes: Partial<MountRequest> = {}): MountRequest {
    const registry = this.proxy.host;
    return {
      mount_id: id,
      mountpoint: join(this.directory, id),
      index_path: join(this.directory, 'index'),
      workspace_id: 'ws_1',
      image: {
        id: 'img_1',
        reference: `${registry}/team/app:latest`,
        registry,
        repository: this.image.repository,
        manifest_digest: this.image.manifestDigest,
        index_digest: 'a'.repeat(64),
      },
      image_credentials: JSON.stringify({
        registry,
        type: 'basic',
        credentials: { USERNAME: USER, PASSWORD: password },
      }),
      ...changes,
    };
  }

  /** Mount points below the world's directory. */
  mounted(): string[] {
    return readMountTable()
      .map((entry) => entry.target)
      .filter((target) => target.startsWith(`${this.directory}/`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.#pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended already.
      }
    }
    for (const target of this.mounted().reverse()) unmount(target, { detach: true });
    await this.proxy.stop();
    await this.registry.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}
