/** One end of a WebSocket, as a session needs it. */
export interface SessionSocket {
  send(message: string | Uint8Array): void;
  close(code: number, reason: string): void;
}

/** Why a WebSocket is closed. @see RFC 6455 section 7.4.1 */
export const CLOSED = { normal: 1000, goingAway: 1001, refused: 1008 } as const;

/** What a WebSocket is handed to: whoever has the connection calls these, in this order. */
export interface SocketSession {
  opened(socket: SessionSocket): void;
  received(message: string | Uint8Array): void;
  closed(): void;
}

/** The value of a text message; undefined for what is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
