'use strict';
// Draws the figures that are embedded as JSON, in the colours of the reader's choice.
// A browser holds few WebGL contexts at once, so a figure that is out of sight is
// taken away, and comes back as it was turned.
(() => {
  document.documentElement.classList.add('js');
  const plots = JSON.parse(document.getElementById('plots').textContent);
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const narrow = () => innerWidth < 544;
  const config = {
    responsive: true, displaylogo: false, displayModeBar: narrow() ? false : 'hover',
  };
  const hosts = [...document.querySelectorAll('.plot')];
  const cameras = new Map();

  const coloured = (layout, host) => {
    const style = getComputedStyle(document.documentElement);
    const [ink, line, panel] = ['--ink', '--line', '--panel']
      .map((name) => style.getPropertyValue(name).trim());
    const axis = {gridcolor: line, zerolinecolor: line, linecolor: line, color: ink};
    const changed = {
      ...layout, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      font: {...layout.font, color: ink, size: 12},
      hoverlabel: {namelength: -1, bgcolor: panel, bordercolor: line, font: {color: ink}},
      modebar: {bgcolor: 'rgba(0,0,0,0)', color: line, activecolor: ink},
    };
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis/.test(name)) changed[name] = {...layout[name], ...axis};
    }
    if (layout.scene) {
      changed.scene = {...layout.scene};
      for (const name of ['xaxis', 'yaxis', 'zaxis']) {
        changed.scene[name] = {...layout.scene[name], ...axis};
      }
      if (narrow()) {  // room for the axes' names
        const {x, y, z} = changed.scene.camera.eye;
        changed.scene.camera = {eye: {x: 1.35 * x, y: 1.35 * y, z: 1.35 * z}};
      }
      if (cameras.has(host)) changed.scene.camera = cameras.get(host);
    }
    return changed;
  };

  // Beside a surface there is no room on a phone: its scale lies below it.
  const fitted = (trace) => (narrow() && trace.type === 'surface') ? {
    ...trace, colorbar: {
      ...trace.colorbar, orientation: 'h', len: 0.9, y: 0, yanchor: 'top',
      title: {...trace.colorbar.title, side: 'top'},
    },
  } : trace;

  const draw = (host) => {
    const {data, layout} = plots[Number(host.dataset.plot)];
    Plotly.react(host, data.map(fitted), coloured(layout, host), config);
    if (layout.scene && !host.dataset.watched) {
      host.dataset.watched = 'yes';
      host.on('plotly_relayout', (change) => {
        const camera = change['scene.camera'];
        if (camera) cameras.set(host, camera);
      });
    }
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      const drawn = target.classList.contains('js-plotly-plot');
      if (isIntersecting && !drawn) draw(target);
      else if (!isIntersecting && drawn && target._fullLayout.scene) {
        Plotly.purge(target);
        target.classList.remove('js-plotly-plot');
        delete target.dataset.watched;
      }
    }
  }, {rootMargin: '400px 0px'});
  hosts.forEach((host) => watcher.observe(host));
  dark.addEventListener('change', () => hosts
    .filter((host) => host.classList.contains('js-plotly-plot')).forEach(draw));
})();
