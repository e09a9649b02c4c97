import { METRICS_CONTENT_TYPE, type MetricFamily, renderMetrics } from '../../observability/index.ts';
import { type Route, requireUnbound } from '../routing.ts';

/** The figures of this server as text, for whoever has an admin token; `--metrics-listen` gives them to a scraper. */
export function metricsRoutes(collect: () => Promise<readonly MetricFamily[]>): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/metrics',
      role: 'admin',
      summary: 'What this server did and has, as text for Prometheus',
      async handle(c, { identity }) {
        requireUnbound(identity);
        return c.body(renderMetrics(await collect()), 200, { 'content-type': METRICS_CONTENT_TYPE });
      },
    },
  ];
}
