import { z } from 'zod';
import { Secret } from '../credentials/index.ts';
import { ImgcredError } from '../errors/index.ts';
import type { ContainerOverrides, ContainerRequest } from '../protocol/index.ts';
import type {
  ContainerMount,
  ContainerOptions,
  ContainerSecret,
  ImageProcessConfig,
} from './containers/index.ts';

const texts = z.array(z.string()).nullish();
// Checked when the image was registered; looked at again because it crossed a role's border.
const imageConfigSchema = z.looseObject({
  config: z
    .looseObject({
      Entrypoint: texts,
      Cmd: texts,
      Env: texts,
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
      StopSignal: z.string().nullish(),
    })
    .nullish(),
});

/**
 * What a request says of its container, in the terms of `containers/`.
 *
 * @throws ImgcredError NOT_AN_IMAGE where the image's config is not one
 */
export function containerOptions(request: ContainerRequest): {
  image: ImageProcessConfig;
  options: ContainerOptions;
} {
  const parsed = imageConfigSchema.safeParse(request.image.config);
  if (!parsed.success) {
    throw new ImgcredError('NOT_AN_IMAGE', `the config of ${request.image.reference} is not an image's`, {
      hint: 'register the image again',
    });
  }
  const { overrides } = request;
  return {
    image: parsed.data.config ?? {},
    options: {
      command: request.command,
      env: request.env,
      entrypoint: overrides.entrypoint,
      workdir: overrides.workdir,
      user: overrides.user,
      hostname: overrides.hostname,
      network: overrides.network,
      readOnly: overrides.read_only,
      capAdd: overrides.cap_add,
      capDrop: overrides.cap_drop,
      noNewPrivileges: overrides.no_new_privileges,
      stopTimeoutMs: overrides.stop_timeout === undefined ? undefined : overrides.stop_timeout * 1000,
      limits: { memoryBytes: overrides.memory_bytes, cpus: overrides.cpus, pids: overrides.pids_limit },
      terminal: overrides.terminal,
      terminalSize: overrides.terminal_size,
      interactive: overrides.interactive,
      mounts: mountsOf(overrides),
    },
  };
}

// What nearly every program writes to, and podman keeps writable in a container that is read-only else.
const SCRATCH = ['/run', '/tmp', '/var/tmp'];

function mountsOf({ mounts = [], read_only }: ContainerOverrides): ContainerMount[] {
  const wanted = mounts.map(
    (mount): ContainerMount =>
      mount.type === 'bind'
        ? { type: 'bind', source: mount.source, target: mount.target, readOnly: mount.read_only }
        : {
            type: 'tmpfs',
            target: mount.target,
            sizeBytes: mount.size_bytes,
            mode: mount.mode,
            readOnly: mount.read_only,
          },
  );
  const taken = new Set(mounts.map(({ target }) => target.replace(/\/+$/, '')));
  const scratch = read_only === true ? SCRATCH.filter((target) => !taken.has(target)) : [];
  return [...scratch.map((target): ContainerMount => ({ type: 'tmpfs', target })), ...wanted];
}

/**
 * The secrets of a request, in the terms of `containers/`.
 *
 * @throws ImgcredError INVALID_CREDENTIALS where their values did not come with it
 */
export function containerSecrets({
  secrets = [],
  secret_values: values = [],
}: Pick<ContainerRequest, 'secrets' | 'secret_values'>): ContainerSecret[] {
  return secrets.map((use, at): ContainerSecret => {
    const value = values[at];
    if (value === undefined) {
      throw new ImgcredError('INVALID_CREDENTIALS', `the secret ${use.name} came without its value`);
    }
    if (use.type === 'env') return { kind: 'env', name: use.target ?? use.name, value };
    return {
      kind: 'file',
      target: use.target ?? use.name,
      value: new Secret(new TextEncoder().encode(value.reveal())),
      mode: use.mode,
      uid: use.uid,
      gid: use.gid,
    };
  });
}
