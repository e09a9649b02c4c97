import { z } from 'zod';
import { ImgcredError, isErrorCode } from '../errors/index.ts';

/** An error on its way from one process to another, as `ImgcredError.toJSON` writes it. */
export const plainErrorSchema = z.object({
  code: z.string(),
  message: z.string(),
  hint: z.string().optional(),
});
export type PlainError = z.infer<typeof plainErrorSchema>;

const bodySchema = z.object({ error: plainErrorSchema });

/** The error that another process speaks of. One that is not known here, because that one is newer, is a defect's. */
export function errorOf({ code, message, hint }: PlainError): ImgcredError {
  return new ImgcredError(isErrorCode(code) ? code : 'INTERNAL', message, { hint });
}

/** What an answer that is no success says of it; undefined where it is not one of ours. */
export async function errorOfResponse(response: Response): Promise<ImgcredError | undefined> {
  const body = bodySchema.safeParse(await response.json().catch(() => undefined));
  return body.success ? errorOf(body.data.error) : undefined;
}
