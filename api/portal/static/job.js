// The page of a job: curves drawn from their tables, a log that keeps its length, and how the connection is.
"use strict";
(() => {
  const curves = document.getElementById("curves");
  const plots = new Map();
  const HEIGHT = 220;
  const WHOLE = Array.from({ length: 9 }, (_, power) => [1, 2, 5].map((each) => each * 10 ** power)).flat();

  const points = (figure) => {
    const values = new Map(); // by step: of one told again by a later attempt, the later holds
    for (const row of figure.querySelectorAll("tr[data-x]")) values.set(Number(row.dataset.x), Number(row.dataset.y));
    const steps = [...values.keys()].sort((a, b) => a - b);
    return [steps, steps.map((step) => values.get(step))];
  };

  // Without a cursor the legend has the newest values.
  const withNewest = (plot) => {
    if (plot.legend.idx === null) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
  };

  const options = (figure, place) => {
    const style = getComputedStyle(place);
    const axis = {
      stroke: getComputedStyle(figure).color,
      grid: { stroke: style.borderTopColor, width: 1 },
      ticks: { stroke: style.borderTopColor, width: 1 },
      font: "12px system-ui, sans-serif",
    };
    return {
      width: place.clientWidth,
      height: HEIGHT,
      legend: { live: true },
      hooks: { setLegend: [withNewest], ready: [withNewest], setData: [withNewest] },
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 32, incrs: WHOLE }, { ...axis, size: 64 }],
      series: [
        { label: figure.dataset.step },
        { label: figure.dataset.value, stroke: style.color, width: 2, points: { size: 5 } },
      ],
    };
  };

  const widths = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      plots.get(target.closest("figure"))?.setSize({ width: contentRect.width, height: HEIGHT });
    }
  });

  const draw = (figure) => {
    const place = figure.querySelector(".plot");
    const plot = plots.get(figure);
    const data = points(figure);
    if (plot) return plot.setData(data);
    if (data[0].length < 2) return; // one point is no curve
    place.hidden = false;
    plots.set(figure, new uPlot(options(figure, place), data, place));
    widths.observe(place);
  };

  const redraw = () => {
    for (const [figure, plot] of [...plots]) {
      plot.destroy();
      plots.delete(figure);
      draw(figure);
    }
  };

  const changed = new Set();
  const note = (figure) => {
    if (!changed.size) requestAnimationFrame(() => { changed.forEach(draw); changed.clear(); });
    changed.add(figure);
  };
  new MutationObserver((records) => {
    for (const { target, addedNodes } of records) {
      for (const each of addedNodes) if (each instanceof Element && each.matches("figure.curve")) note(each);
      if (target.nodeName === "TBODY" && target.id) note(target.closest("figure.curve"));
    }
  }).observe(curves, { childList: true, subtree: true });
  curves.querySelectorAll("figure.curve").forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  const log = document.getElementById("log");
  if (log) {
    const frame = log.parentElement;
    let follows = true;
    frame.addEventListener("scroll", () => {
      follows = frame.scrollTop + frame.clientHeight > frame.scrollHeight - 24;
    });
    const keep = () => {
      while (log.children.length > Number(log.dataset.most)) log.firstElementChild.remove();
      if (follows) frame.scrollTop = frame.scrollHeight;
    };
    new MutationObserver(keep).observe(log, { childList: true });
    keep();
  }

  // Durations go on from what the server said last: it says nothing between two events.
  const head = document.getElementById("head");
  const span = (seconds) => {
    const whole = Math.floor(seconds);
    const padded = (number) => String(number).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${padded(whole % 60)} s`;
    if (whole < 48 * 3600) return `${Math.floor(whole / 3600)} h ${padded(Math.floor((whole % 3600) / 60))} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  };
  // The words of an estimated time are those of the server, `secateur_wire.progress.between`.
  const roughly = (seconds) => {
    if (seconds < 90) return `${Math.max(seconds, 1).toFixed(0)} s`;
    return seconds < 5400 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
  };
  const between = (low, high) => {
    const [least, most] = [roughly(low), roughly(high)];
    if (least === most) return `about ${most}`;
    if (low < 1) return `up to ${most}`;
    const [number, unit] = least.split(" ");
    return `${unit === most.split(" ")[1] ? number : least} to ${most}`;
  };
  let saidAt = Date.now();
  let heardAt = null; // of an event that left the head as it was
  const words = {
    elapsed: (said, since) => span(said + since),
    left: (said, since, least) => (said > since ? `${between(Math.max(least - since, 0), said - since)} left` : "takes longer than expected"),
    silent: (said, since) => `${span(heardAt === null ? said + since : (Date.now() - heardAt) / 1000)} ago`,
  };
  const tick = () => {
    const since = (Date.now() - saidAt) / 1000;
    for (const each of head.querySelectorAll("[data-clock]")) {
      each.firstChild.data = words[each.dataset.clock](Number(each.dataset.seconds), since, Number(each.dataset.least));
    }
  };
  new MutationObserver(() => {
    saidAt = Date.now();
    heardAt = null;
    tick();
  }).observe(head, { attributes: true, attributeFilter: ["data-seconds", "data-least"], childList: true, subtree: true });
  setInterval(tick, 1000);

  const live = document.getElementById("live");
  if (live) {
    live.addEventListener("htmx:sse:after:message", () => (heardAt = Date.now()));
    const say = (...parts) => {
      const line = document.createElement("p");
      line.className = "notice warn";
      line.append(...parts);
      live.replaceChildren(...(parts.length ? [line] : []));
    };
    const lost = (status) => {
      if (status !== 401) return say("The connection is lost. It is tried again, and nothing will be missing.");
      const link = document.createElement("a");
      link.href = "/portal/sign-in?then=" + encodeURIComponent(location.pathname);
      link.target = "_blank";
      link.textContent = "Sign in in another tab";
      say("Your session has expired or was ended. ", link, "; this page then goes on by itself.");
    };
    let wasConnected = false;
    live.addEventListener("htmx:sse:after:connection", () => {
      wasConnected = true;
      say();
    });
    live.addEventListener("htmx:sse:close", (event) => event.detail.reason === "message" && say());
    live.addEventListener("htmx:sse:error", (event) => lost(event.detail.status));
    // The extension connects again what it lost, but gives up where the first connection fails.
    live.addEventListener("htmx:finally:request", (event) => {
      if (wasConnected) return;
      lost(event.detail.ctx.response?.status);
      setTimeout(() => htmx.trigger(live, "connect"), 2000);
    });
  }
})();
