import { z } from 'zod';
import { ImgcredError } from '../errors/index.ts';
import type { ContainerRequest } from '../protocol/index.ts';
import type { ContainerOptions, ImageProcessConfig } from './containers/index.ts';

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
      Labels: z.record(z.string(), z.string()).nullish(),
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
      labels: overrides.labels,
      stopTimeoutMs: overrides.stop_timeout === undefined ? undefined : overrides.stop_timeout * 1000,
      limits: { memoryBytes: overrides.memory_bytes, cpus: overrides.cpus, pids: overrides.pids_limit },
      mounts: overrides.mounts?.map((mount) =>
        mount.type === 'bind'
          ? { type: 'bind', source: mount.source, target: mount.target, readOnly: mount.read_only }
          : { type: 'tmpfs', target: mount.target, sizeBytes: mount.size_bytes },
      ),
    },
  };
}
