import type { ContainerOptions, ImageProcessConfig } from './container-options.ts';
import { ContainerInputError } from './errors.ts';

/**
 * What the container runs: entrypoint, then command. The image's command is taken only where neither a command
 * nor an entrypoint was given, since it was written for the image's own entrypoint.
 * @throws ContainerInputError when nothing is left to run
 * @see OCI image-spec, config.md, `Entrypoint` and `Cmd`
 */
export function commandLine(image: ImageProcessConfig, options: ContainerOptions): string[] {
  const entrypoint = options.entrypoint ?? image.Entrypoint ?? [];
  const given = options.command ?? [];
  const usesImageCommand = given.length === 0 && (options.entrypoint ?? []).length === 0;
  const command = usesImageCommand ? (image.Cmd ?? []) : given;
  const cleared = entrypoint.length === 1 && entrypoint[0] === '';
  const args = [...(cleared ? [] : entrypoint), ...command];
  if (args.length === 0) {
    throw new ContainerInputError('the image names no command and none was given', {
      hint: 'say what to run: imgcred run IMAGE -- COMMAND',
    });
  }
  const broken = args.find((argument) => argument.includes('\0'));
  if (broken !== undefined) throw new ContainerInputError('an argument of the command holds a NUL byte');
  return args;
}
