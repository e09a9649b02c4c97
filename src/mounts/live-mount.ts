import { mkdirSync, rmSync } from 'node:fs';
import { type ContentStore, ImageContent } from '../content/index.ts';
import {
  anonymousProvider,
  type CredentialProvider,
  createProviderFromCredentials,
  RotatingProvider,
  type Secret,
  unmarshalCredentials,
} from '../credentials/index.ts';
import { ImgcredError } from '../errors/index.ts';
import {
  createImageFileSystem,
  duplicateDescriptorOf,
  type FuseDriver,
  type ImageFileSystem,
  type KernelMount,
  type MountedFileSystem,
  mountFuseNative,
  mountKernel,
  readMountTable,
  resumeKernel,
  unmount,
} from '../filesystem/index.ts';
import { DEFAULT_SPAN_SIZE, type ImageIndex, openImageIndex } from '../index/index.ts';
import type { Logger } from '../observability/index.ts';
import type { RecordedStart } from '../protocol/index.ts';
import { parseDigest } from '../reference/index.ts';
import { RegistryClient, type RegistryClientOptions } from '../registry/index.ts';
import type { AccessProofs } from './access-proofs.ts';
import type { HandedMount, MountStats, MountView, PlainMountRequest } from './messages.ts';
import { mountStats } from './mount-stats.ts';
import { RegistryBlobs } from './registry-blobs.ts';

export interface LiveMountContext {
  readonly store: ContentStore;
  readonly registry: RegistryClientOptions;
  readonly proofs: AccessProofs;
  readonly driver: FuseDriver;
  readonly readTimeoutMs: number;
  /** Whether nobody but this user reaches the mount points: what is mounted there is not shown yet. */
  readonly hiddenMountpoints: boolean;
  /** Where a mount's state lies that a successor resumes from. */
  readonly statePath: (mountId: string) => string;
  readonly logger: Logger;
}

/** A mount that another server has served until now. */
export interface EarlierMount {
  /** A duplicate of its /dev/fuse descriptor. Owned by the mount that goes on with it. */
  readonly descriptor: number;
  /** What it had fetched; undefined where its server can't be asked any more. */
  readonly stats?: MountStats | undefined;
}

/** An image that this process serves at a mount point, with the credential that reads it. */
export class LiveMount {
  readonly request: PlainMountRequest;
  readonly content: ImageContent;
  readonly index: ImageIndex;
  /** How often it was asked for. */
  uses = 1;
  /** What its start touched, once that is known and until somebody takes it. */
  recordedStart: RecordedStart | undefined;
  readonly #provider: RotatingProvider;
  #credential: Secret<string> | undefined;
  readonly #client: RegistryClient;
  readonly #blobs: RegistryBlobs;
  readonly #mounted: MountedFileSystem | KernelMount;
  readonly #context: LiveMountContext;
  readonly #before: MountStats | undefined;

  private constructor(parts: {
    request: PlainMountRequest;
    content: ImageContent;
    index: ImageIndex;
    provider: RotatingProvider;
    credential: Secret<string> | undefined;
    client: RegistryClient;
    blobs: RegistryBlobs;
    mounted: MountedFileSystem | KernelMount;
    context: LiveMountContext;
    before: MountStats | undefined;
  }) {
    this.request = parts.request;
    this.content = parts.content;
    this.index = parts.index;
    this.#provider = parts.provider;
    this.#credential = parts.credential;
    this.#client = parts.client;
    this.#blobs = parts.blobs;
    this.#mounted = parts.mounted;
    this.#context = parts.context;
    this.#before = parts.before;
  }

  /**
   * Proves the credential and mounts; where others could reach the mount point, one after the other. With `earlier`,
   * goes on serving that mount instead; what is in flight there is answered.
   *
   * @throws ImgcredError CREDENTIALS_REFUSED, REGISTRY_UNREACHABLE, MOUNT_FAILED, CORRUPT…
   */
  static async open(
    request: PlainMountRequest,
    credential: Secret<string> | undefined,
    context: LiveMountContext,
    earlier?: EarlierMount,
  ): Promise<LiveMount> {
    const { image, max_fetch_bytes: mostBytes } = request;
    const before = earlier?.stats;
    const provider = new RotatingProvider(providerOf(image.registry, credential));
    const logger = context.logger.with({ mount_id: request.mount_id, image: image.reference });
    const client = new RegistryClient(image.registry, provider, context.registry);
    const blobs = new RegistryBlobs(client, image.repository);
    let content: ImageContent | undefined;
    let mounted: MountedFileSystem | KernelMount | undefined;
    try {
      // A successor doesn't ask again: its readers are waiting, and their mount was granted.
      const proved =
        earlier === undefined ? proveAccess(request, credential, client, context, logger) : Promise.resolve();
      proved.catch(() => {});
      if (!context.hiddenMountpoints) await proved;
      // The file was checked when it arrived; its pages come in as they are looked at.
      const index = openImageIndex(Bun.mmap(request.index_path));
      content = new ImageContent(index, context.store, blobs, {
        logger,
        image: image.reference,
        readDeadlineMs: context.readTimeoutMs,
        fetchTogetherBytes: DEFAULT_SPAN_SIZE,
        ...(mostBytes === undefined
          ? {}
          : { maxFetchBytes: Math.max(0, mostBytes - (before?.bytes_fetched ?? 0)) }),
      });
      mounted = await mount(
        request,
        createImageFileSystem(index, content),
        content,
        context,
        logger,
        earlier?.descriptor,
      );
      await proved;
      return new LiveMount({
        ...{ request, content, index, provider, credential, client, blobs, mounted, context, before },
      });
    } catch (thrown) {
      await mounted?.unmount().catch((failed: unknown) => {
        logger.error('unmounting failed', { error: String(failed) });
      });
      if (earlier === undefined) rmSync(context.statePath(request.mount_id), { force: true });
      await content?.close();
      client.close();
      throw thrown;
    }
  }

  /** Reads without a credential from now on: it was taken away. What is local stays readable. */
  async dropCredential(): Promise<void> {
    const { image, workspace_id: workspaceId } = this.request;
    this.#provider.replace(anonymousProvider(image.registry));
    this.#credential = undefined;
    await this.#context.proofs.forget({ workspaceId, manifestDigest: image.manifest_digest });
  }

  /**
   * Proves another credential for this image, and uses it from now on.
   *
   * @throws ImgcredError CREDENTIALS_REFUSED, REGISTRY_UNREACHABLE…: then the one before stays
   */
  async useCredential(credential: Secret<string> | undefined): Promise<void> {
    const { image } = this.request;
    const next = providerOf(image.registry, credential);
    const client = new RegistryClient(image.registry, next, this.#context.registry);
    try {
      await proveAccess(this.request, credential, client, this.#context, this.#context.logger);
    } finally {
      client.close();
    }
    this.#provider.replace(next);
    this.#credential = credential;
    // Another login may have another allowance.
    this.#blobs.askAgain();
  }

  /** What opens the image: for a worker that takes the mount up, so that it can hand it to our successor. */
  get credential(): Secret<string> | undefined {
    return this.#credential;
  }

  view(): MountView {
    const mounted = this.#mounted;
    return {
      mount_id: this.request.mount_id,
      mountpoint: this.request.mountpoint,
      image_id: this.request.image.id,
      workspace_id: this.request.workspace_id,
      request: this.request,
      driver: mounted.driver,
      image_compressed_bytes: this.index.layers.reduce((sum, layer) => sum + layer.size, 0),
      ...('descriptor' in mounted ? { descriptor: mounted.descriptor } : {}),
      stats: this.stats(),
      uses: this.uses,
      start_recorded: this.recordedStart !== undefined,
    };
  }

  /** Resolves when the kernel has ended the mount, whoever wanted that; undefined where the driver can't tell. */
  get ended(): Promise<void> | undefined {
    return 'closed' in this.#mounted ? this.#mounted.closed : undefined;
  }

  /** Whether another server could go on with it. */
  get canBeHandedOver(): boolean {
    return 'handOver' in this.#mounted;
  }

  /**
   * Stops serving without unmounting. What is in flight waits, unanswered, for whoever goes on with the descriptor,
   * which stays open in this process.
   *
   * @throws ImgcredError UNSUPPORTED where the driver has no such thing
   */
  async handOver(): Promise<HandedMount> {
    const mounted = this.#mounted;
    if (!('handOver' in mounted)) throw notHandedOver();
    const stats = this.stats();
    const descriptor = duplicateDescriptorOf(process.pid, mounted.descriptor);
    try {
      await mounted.handOver();
    } finally {
      await this.content.close();
      this.#client.close();
    }
    const credential = this.#credential?.reveal();
    return {
      request: this.request,
      ...(credential === undefined ? {} : { image_credentials: credential }),
      descriptor,
      stats: { ...stats, waiting_reads: 0 },
      ...(this.recordedStart === undefined ? {} : { start: this.recordedStart }),
    };
  }

  /** Unmounts, and gives back what served it, whatever goes wrong. */
  async close(): Promise<void> {
    try {
      await this.#mounted.unmount();
    } finally {
      try {
        await this.content.close();
      } finally {
        this.#client.close();
      }
    }
  }

  /** What it has done, also by the servers before this one; also once it is closed. */
  stats(): MountStats {
    return mountStats(this.content.stats(), this.content.waitingReads, this.#before);
  }
}

function providerOf(registry: string, credential: Secret<string> | undefined): CredentialProvider {
  if (credential === undefined) return anonymousProvider(registry);
  return createProviderFromCredentials(
    registry,
    unmarshalCredentials(credential.reveal(), registry).credentials,
  );
}

function proveAccess(
  request: PlainMountRequest,
  credential: Secret<string> | undefined,
  client: RegistryClient,
  context: LiveMountContext,
  logger: Logger,
): Promise<void> {
  const { image } = request;
  return context.proofs.require(
    {
      workspaceId: request.workspace_id,
      manifestDigest: image.manifest_digest,
      registry: image.registry,
      credential,
    },
    (signal) => client.proveAccess(image.repository, parseDigest(image.manifest_digest), signal),
    logger,
  );
}

/** Takes away what a server left at a mount point that was killed between mounting and saying so. */
function clear(mountpoint: string, logger: Logger): void {
  for (const { target } of readMountTable()) {
    if (target !== mountpoint) continue;
    logger.warn('removing a mount whose server is gone', { mountpoint });
    unmount(mountpoint, { detach: true });
  }
}

async function mount(
  request: PlainMountRequest,
  fs: ImageFileSystem,
  content: ImageContent,
  context: LiveMountContext,
  logger: Logger,
  descriptor: number | undefined,
): Promise<MountedFileSystem | KernelMount> {
  // What has a descriptor is the kernel driver's, whichever new mounts get.
  if (context.driver === 'fuse-native' && descriptor === undefined) {
    clear(request.mountpoint, logger);
    mkdirSync(request.mountpoint, { recursive: true, mode: 0o700 });
    return mountFuseNative(fs, request.mountpoint, { logger });
  }
  const options = {
    logger,
    threadData: { indexPath: request.index_path, ...content.shared() },
    // Never waits for a copy: a file that has no backing file yet gets one in the background.
    backingFile: async (ino: number) => content.backingFileNow(ino),
    statePath: context.statePath(request.mount_id),
  };
  if (descriptor !== undefined) return resumeKernel(fs, request.mountpoint, descriptor, options);
  clear(request.mountpoint, logger);
  mkdirSync(request.mountpoint, { recursive: true, mode: 0o700 });
  return mountKernel(fs, request.mountpoint, options);
}

function notHandedOver(): ImgcredError {
  return new ImgcredError('UNSUPPORTED', 'the fuse-native driver can’t hand a mount over', {
    hint: 'use --fuse-driver=kernel',
  });
}
