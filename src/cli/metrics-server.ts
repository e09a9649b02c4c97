import {
  type Logger,
  METRICS_CONTENT_TYPE,
  type MetricFamily,
  renderMetrics,
} from '../observability/index.ts';
import { type HttpServer, listenOn } from './http-server.ts';

/**
 * Serves `GET /metrics` and nothing else, without a token: a scraper needs no right to anything. What it shows are
 * figures and the names of workers.
 *
 * @throws ImgcredError PORT_IN_USE, or USAGE for an address that is not this machine's
 */
export function serveMetrics(
  collect: () => Promise<readonly MetricFamily[]>,
  listen: string,
  logger: Logger,
): HttpServer {
  return listenOn('--metrics-listen', listen, {
    async fetch(request: Request): Promise<Response> {
      if (request.method !== 'GET' || new URL(request.url).pathname !== '/metrics') {
        return new Response('GET /metrics\n', { status: 404 });
      }
      try {
        const text = renderMetrics(await collect());
        return new Response(text, { headers: { 'content-type': METRICS_CONTENT_TYPE } });
      } catch (thrown) {
        logger.error('the metrics could not be collected', { error: String(thrown) });
        return new Response('the metrics could not be collected: see the log\n', { status: 500 });
      }
    },
  });
}
