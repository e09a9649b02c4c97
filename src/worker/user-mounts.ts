import { join } from 'node:path';
import type { Config, DataLayout } from '../config/index.ts';
import { ImgcredError } from '../errors/index.ts';
import { readUserNamespace } from '../filesystem/index.ts';
import { findOrStartMountServer, MountClient, type MountView } from '../mounts/index.ts';
import type { Logger } from '../observability/index.ts';
import type { CredentialUpdate, ImageRequest, MountedImage } from '../protocol/index.ts';
import { mountRequest, plainMountRequest } from './mount-request.ts';
import { mountServerSettings } from './mount-server-settings.ts';

// What is on this machine and does not answer by then is stopped, or changes hands.
const TELLS_WITHIN_MS = 1_000;

/** Whether this process works for an ordinary user: what it mounts itself is seen in its own name space alone. */
export function worksForUser(): boolean {
  return process.geteuid?.() !== 0 || !readUserNamespace().initial;
}

/**
 * Makes sure that a mount server runs outside of the worker's name space, where it mounts by `fusermount3`: all of
 * the user's processes see that. It ends with its last mount.
 *
 * @throws ImgcredError MOUNT_FAILED, FUSE_UNAVAILABLE
 */
export async function startUserMountServer(
  config: Config,
  layout: DataLayout,
  logger: Logger,
): Promise<void> {
  const settings = {
    ...mountServerSettings(config, layout),
    socket: layout.userMountSocket,
    state_directory: join(layout.worker, 'user-mount-state'),
    ends_with_mounts: true,
  };
  const logFile = join(layout.worker, 'user-mount-server.log');
  const { client } = await findOrStartMountServer(settings, logFile, logger, { keepBusy: true });
  // The image may have to be registered first, which takes its time.
  await client.hold(process.pid);
}

/** An ordinary user's images at directories of its own, each a mount of its own. */
export class UserMounts {
  readonly #client: MountClient;
  // Mount → which version of its image's credential it reads with, as far as this process knows.
  readonly #versions = new Map<string, string>();
  #listed: readonly MountView[] = [];

  constructor(socket: string) {
    this.#client = new MountClient(socket);
  }

  /** @throws ImgcredError CONFLICT where an image is there already, and what keeps the image from being mounted */
  async mount(request: ImageRequest, indexPath: string, target: string): Promise<MountView> {
    if ((await this.#client.health()) === undefined) {
      throw new ImgcredError('MOUNT_FAILED', 'what mounts for an ordinary user does not run', {
        hint: 'use the command imgcred mount, on this worker’s machine and as its user: it starts that',
      });
    }
    const there = (await this.list()).find(({ mountpoint }) => mountpoint === target);
    if (there !== undefined) {
      throw new ImgcredError('CONFLICT', `${there.request.image.reference} is mounted at ${target} already`, {
        hint: `imgcred umount ${target}`,
      });
    }
    const mount_id = new Bun.CryptoHasher('sha256').update(target).digest('hex').slice(0, 24);
    const plain = plainMountRequest(request, { mount_id, mountpoint: target, index_path: indexPath });
    const view = await this.#client.mount(mountRequest(plain, request.image_credentials, request.trace));
    this.#versions.set(mount_id, request.credential_version);
    return view;
  }

  /**
   * The images that are mounted, with what each is read with. Where their server does not tell soon, those that it told
   * of last: whoever asks has more to see to, and what is not named is given no other credential any more.
   */
  async images(): Promise<MountedImage[]> {
    const told = this.list().catch(() => undefined);
    const listed = await Promise.race([told, Bun.sleep(TELLS_WITHIN_MS)]);
    this.#listed = listed ?? this.#listed;
    return this.#listed.map(({ mount_id, image_id }) => {
      const version = this.#versions.get(mount_id);
      return { image_id, ...(version === undefined ? {} : { version }) };
    });
  }

  /**
   * Gives the mounts of an image another credential, or takes it away.
   *
   * @throws ImgcredError of what kept it from being proved: then the one before stays
   */
  async useCredential({
    workspace_id,
    image_id,
    version,
    image_credentials: credential,
  }: CredentialUpdate): Promise<void> {
    for (const view of await this.list()) {
      const { mount_id } = view;
      const isOf = view.workspace_id === workspace_id && view.image_id === image_id;
      if (!isOf || this.#versions.get(mount_id) === version) continue;
      await (credential === undefined
        ? this.#client.dropCredential(mount_id)
        : this.#client.useCredential(mount_id, credential.reveal()));
      this.#versions.set(mount_id, version);
    }
  }

  /** None where nothing was ever mounted. */
  async list(): Promise<MountView[]> {
    return (await this.#client.health()) === undefined ? [] : this.#client.list();
  }
}
