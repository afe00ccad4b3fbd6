// Draws the charts of the report with Chart.js from the numbers in the page. A line has a band from the low to the high
// end of its intervals; a category has a bar from low to high and a point at the value.
'use strict';
(() => {
  const charts = JSON.parse(document.getElementById('series').textContent);
  const shapes = ['circle', 'rectRot', 'triangle', 'rect', 'crossRot', 'star'];
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = i => style('--series-' + (i % 6 + 1));
  const wash = hex => hex + '33';
  const superscript = n => String(n).replace(/[-0-9]/g, c => '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'['-0123456789'.indexOf(c)]);
  const power = v => { const [m, e] = v.toExponential(1).replace('.0', '').split('e'); return (m === '1' ? '' : m + '·') + '10' + superscript(+e); };
  const short = v => v === 0 ? '0' : Math.abs(v) >= 1e4 || Math.abs(v) < 1e-3 ? power(v) : String(+v.toPrecision(3));

  // A logarithmic axis has no room for 0 and below: an interval that reaches there ends below the smallest value.
  const floorOf = chart => {
    const positive = chart.lines.flatMap(l => l.points.flatMap(p => p.slice(1))).filter(v => v > 0);
    return positive.length ? Math.min(...chart.lines.flatMap(l => l.points.map(p => p[1])).filter(v => v > 0), ...positive) / 2 : 1e-12;
  };

  const lines = chart => {
    const floor = floorOf(chart), y = v => chart.y_log ? Math.max(v, floor) : v;
    return chart.lines.flatMap((line, i) => {
      const edge = { borderWidth: 0, pointRadius: 0, pointHitRadius: 0, backgroundColor: wash(color(i)), edge: true };
      return [
        { ...edge, label: '', data: line.points.map(p => ({ x: p[0], y: y(p[2]) })), fill: false },
        { ...edge, label: '', data: line.points.map(p => ({ x: p[0], y: y(p[3]) })), fill: '-1' },
        { label: line.name, clip: false, data: line.points.map(p => ({ x: p[0], y: y(p[1]), lo: p[2], hi: p[3] })), borderColor: color(i),
          backgroundColor: color(i), borderWidth: 2, pointStyle: shapes[i % 6], pointRadius: 3.5, borderDash: i % 2 ? [6, 3] : [] },
      ];
    });
  };

  const bars = chart => {
    const floor = floorOf(chart), v = x => chart.y_log ? Math.max(x, floor) : x;
    const at = (line, pick) => chart.labels.map((_, i) => { const p = line.points.find(q => q[0] === i); return p ? pick(p) : null; });
    return chart.lines.flatMap((line, i) => [
      { type: 'bar', label: line.name, data: at(line, p => [v(p[2]), v(p[3])]), backgroundColor: color(i) + '99', borderColor: color(i),
        borderWidth: 1, borderSkipped: false, minBarLength: 5, barPercentage: .7, values: at(line, p => p) },
    ]);
  };

  // The threshold is a line of its own, across all x or all categories.
  const threshold = (chart, xs) => chart.threshold === null ? [] : [{ type: 'line', label: 'threshold', borderColor: style('--soft'), backgroundColor: style('--soft'),
    borderWidth: 1.5, borderDash: [2, 3], pointRadius: 0, pointHitRadius: 0, pointStyle: 'line', fill: false,
    data: chart.labels.length ? chart.labels.map(() => chart.threshold) : [xs[0], xs.at(-1)].map(x => ({ x, y: chart.threshold })), bound: true }];

  const draw = () => charts.map((chart, index) => {
    const canvas = document.getElementById('chart-' + index), categories = chart.labels.length > 0;
    const xs = [...new Set(chart.lines.flatMap(l => l.points.map(p => p[0])))].sort((a, b) => a - b);
    Chart.getChart(canvas)?.destroy();
    const valueAxis = { type: chart.y_log ? 'logarithmic' : 'linear', title: { display: true, text: chart.y_title }, grid: { color: style('--grid'), drawBorder: false },
      ticks: { callback: short, maxTicksLimit: 7 }, beginAtZero: !chart.y_log };
    const otherAxis = categories ? { grid: { display: false }, ticks: { autoSkip: false } }
      : { type: chart.x_log ? 'logarithmic' : 'linear', title: { display: true, text: chart.x_title }, grid: { color: style('--grid'), drawBorder: false }, ticks: { callback: short, maxTicksLimit: 10, maxRotation: 0 },
        min: xs[0], max: xs.at(-1), afterBuildTicks: axis => { if (chart.x_log) axis.ticks = xs.map(value => ({ value })); } };
    const text = p => `${short(p[1])}  [${short(p[2])} … ${short(p[3])}]`;
    return new Chart(canvas, {
      type: categories ? 'bar' : 'line',
      data: { labels: categories ? chart.labels : undefined, datasets: [...(categories ? bars(chart) : lines(chart)), ...threshold(chart, xs)] },
      options: {
        animation: false, maintainAspectRatio: false, indexAxis: categories ? 'y' : 'x', color: style('--ink'),
        scales: categories ? { x: valueAxis, y: otherAxis } : { x: otherAxis, y: valueAxis },
        plugins: {
          legend: { display: chart.lines.length > 1 || chart.threshold !== null, position: 'bottom', labels: { usePointStyle: true, boxWidth: 8, boxHeight: 8, color: style('--ink'), filter: (item, data) => !data.datasets[item.datasetIndex].edge } },
          tooltip: { filter: item => !item.dataset.edge && !item.dataset.bound, callbacks: { label: item => `${item.dataset.label}: ` +
            text(categories ? item.dataset.values[item.dataIndex] : [0, item.raw.y, item.raw.lo, item.raw.hi]) } },
        },
      },
    });
  });

  const restyle = () => {
    Chart.defaults.color = style('--soft');
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    draw();
  };
  restyle();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', restyle);
  const resize = () => Object.values(Chart.instances).forEach(chart => chart.resize());
  addEventListener('beforeprint', resize);
  addEventListener('afterprint', resize);

  for (const button of document.querySelectorAll('button[data-copy]')) {
    button.addEventListener('click', async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = 'Copied';
      } catch {
        getSelection().selectAllChildren(code);  // without permission: selected, ready for the keyboard
        button.textContent = 'Selected';
      }
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    });
  }
})();
