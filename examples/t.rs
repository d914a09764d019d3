//! t
use gqa::*;
fn main(){
  for (hq,hkv,n,m,d,dv) in [(4,2,3,5,2,2),(8,2,33,70,64,64),(32,8,1,300,128,128),(3,1,7,129,33,5),(6,6,75,1025,80,96),(16,1,1,40,64,64)] {
    for level in Level::available() {
      for causal in [false,true] {
      let shape=Shape{batch:2,q_heads:hq,kv_heads:hkv,q_len:n,kv_len:m,head_dim:d,value_dim:dv};
      let mut seed=1u64; let mut r=|c:usize|->Vec<f32>{(0..c).map(|_|{seed=seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);((seed>>40) as f32/8388608.0)-1.0}).collect()};
      let q=r(2*hq*n*d);let k=r(2*hkv*m*d);let v=r(2*hkv*m*dv);
      let mut out=vec![9.0f32;2*hq*n*dv];
      let mut a=Attention::new(shape).unwrap().level(level); if causal {a=a.causal();}
      let mut job=a.bind(View::bhsd(&q,hq,n,d),View::bhsd(&k,hkv,m,d),View::bhsd(&v,hkv,m,dv),ViewMut::bhsd(&mut out,hq,n,dv)).unwrap();
      let mut s=vec![0.0;job.scratch_len()]; job.run(&mut s).unwrap();
      let mut err=0f64;
      for b in 0..2{for h in 0..hq{for i in 0..n{
        let g=h/(hq/hkv);
        let qr=&q[((b*hq+h)*n+i)*d..][..d];
        let sc:Vec<f64>=(0..m).map(|j| if causal && j as i64> i as i64+m as i64-n as i64 {f64::NEG_INFINITY} else {k[((b*hkv+g)*m+j)*d..][..d].iter().zip(qr).map(|(a,b)|*a as f64**b as f64).sum::<f64>()/(d as f64).sqrt()}).collect();
        let mx=sc.iter().cloned().fold(f64::NEG_INFINITY,f64::max);
        let p:Vec<f64>=sc.iter().map(|s|if mx==f64::NEG_INFINITY {0.0} else{(s-mx).exp()}).collect(); let l:f64=p.iter().sum();
        for c in 0..dv{ let o:f64=if l==0.0{0.0}else{(0..m).map(|j|p[j]*v[((b*hkv+g)*m+j)*dv+c] as f64).sum::<f64>()/l};
          err=err.max((o-out[((b*hq+h)*n+i)*dv+c] as f64).abs()); }
      }}}
      println!("{hq}/{hkv} {n}x{m} d{d}/{dv} {level} causal={causal}: {err:.2e}");
    }}
  }
}
